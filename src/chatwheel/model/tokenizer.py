"""Byte-level BPE (Sennrich et al., 2016; GPT-2) by the `tokenizers` library, saved as transformers reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from chatwheel.atomic import write_atomically
from chatwheel.errors import InputError
from chatwheel.model.chat_template import CHAT_TEMPLATE, END, END_OF_TEXT, SPECIAL_TOKENS, ChatTemplate

# Chinese has no spaces. Twelve of its commonest characters stand alone, so that the words between them are more often
# the same tokens: without this, 巴黎 is one token after a comma and part of another (是巴黎) after a verb, and a small
# model has to learn each of them (docs/LOG.md).
STANDALONE_CHARACTERS = "的了是在不有和说人吗呢吧"
# GPT-4's pattern, but punctuation never joins a word, and each digit stands alone (as in Qwen2).
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    rf"|[{STANDALONE_CHARACTERS}]| ?(?:(?![{STANDALONE_CHARACTERS}])\p{{L}})+"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer:
    """Text to ids and back, and conversations to ids through the chat template."""

    def __init__(self, backend: tokenizers.Tokenizer, template: str = CHAT_TEMPLATE) -> None:
        self._backend = backend
        self.template = ChatTemplate(template)
        self.end_of_text_id = self._special(END_OF_TEXT)
        self.end_id = self._special(END)

    @staticmethod
    def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learns the merges from texts. vocab_size counts the 256 bytes and the special tokens.

        Raises InputError if the texts are too few for that many tokens.
        """
        smallest = 256 + len(SPECIAL_TOKENS)
        if vocab_size < smallest:
            raise InputError(f"tokenizer.vocab_size is {vocab_size}; bytes and special tokens alone need {smallest}")
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        if backend.get_vocab_size() < vocab_size:
            raise InputError(
                f"the text gives only {backend.get_vocab_size()} tokens, {vocab_size} were asked for; "
                "lower tokenizer.vocab_size or give more text"
            )
        return Tokenizer(backend)

    @staticmethod
    def load(directory: Path) -> Tokenizer:
        """Reads `tokenizer.json` and the template of `tokenizer_config.json`."""
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise InputError(f"{directory}: no tokenizer.json there; copy the whole model directory")
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
            path = directory / "tokenizer_config.json"
            template = json.loads(path.read_text(encoding="utf-8")).get("chat_template") or CHAT_TEMPLATE
        except FileNotFoundError as error:
            raise InputError(f"{error.filename}: missing; copy the whole model directory") from None
        except Exception as error:  # the library raises plain Exception for damage
            raise InputError(f"{path}: damaged ({error}); copy the model again") from None
        return Tokenizer(backend, template)

    def save(self, directory: Path, *, max_positions: int) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json`."""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_positions,
            "eos_token": END,
            "pad_token": END_OF_TEXT,
            "additional_special_tokens": [t for t in SPECIAL_TOKENS if t not in (END, END_OF_TEXT)],
            "clean_up_tokenization_spaces": False,
            "chat_template": self.template.source,
        }
        write_atomically(directory / "tokenizer.json", [self._backend.to_str(pretty=False).encode()])
        write_atomically(directory / "tokenizer_config.json", [json.dumps(config, indent=2).encode()])

    def with_template(self, template: str) -> Tokenizer:
        """The same tokens under another chat template."""
        return Tokenizer(self._backend, template)

    @property
    def vocab_size(self) -> int:
        return self._backend.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; special tokens written in it stay text only if the caller took them out."""
        return self._encode(text).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts, in parallel."""
        return [e.ids for e in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, special tokens left out. Bytes that are not UTF-8 (yet) become U+FFFD."""
        return self._backend.decode(list(ids), skip_special_tokens=True)

    def encode_prompt(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Ids of a conversation up to where the assistant begins to speak."""
        return self.encode(self.template.render(messages, add_generation_prompt=True).text)

    def encode_conversation(self, messages: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[bool]]:
        """Ids of a whole conversation, and for each whether the assistant says it (the supervised mask).

        An assistant's message with `weight` 0 is not supervised.
        """
        rendered = self.template.render(messages)
        encoding = self._encode(rendered.text)
        mask = [False] * len(encoding.ids)
        weights = [m.get("weight") for m in messages if m["role"] == "assistant"]
        spans = [s for s, weight in zip(rendered.spans, weights, strict=True) if weight != 0]
        for i, (begin, _) in enumerate(encoding.offsets):
            mask[i] = any(first <= begin < last for first, last in spans)
        return encoding.ids, mask

    def _encode(self, text: str) -> tokenizers.Encoding:
        try:
            return self._backend.encode(text, add_special_tokens=False)
        except TypeError:  # the library takes UTF-8 only, and JSON may hold half a surrogate pair
            raise InputError("the text has characters that are not valid Unicode; take them out") from None

    def _special(self, token: str) -> int:
        number = self._backend.token_to_id(token)
        if number is None:
            raise InputError(f"the tokenizer has no token {token!r}; it was not made by Chatwheel")
        return int(number)
