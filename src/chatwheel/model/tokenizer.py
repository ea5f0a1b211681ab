"""Byte-level BPE (Sennrich et al., 2016; GPT-2) by the `tokenizers` library, saved as transformers reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from chatwheel.atomic import write_atomically
from chatwheel.errors import InputError
from chatwheel.model.chat_template import CHAT_TEMPLATE, END, END_OF_TEXT, SPECIAL_TOKENS, TURNS_TEMPLATE, ChatTemplate

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

CONVERSATIONS_AT_ONCE = 1000

# GPT-2's alphabet: a printable character for each byte, its own where it has one (openai/gpt-2, encoder.py).
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(256 + i): byte for i, byte in enumerate(b for b in range(256) if b not in _PRINTABLE)
}

Span = tuple[int, int]
Dialogue = Sequence[Mapping[str, Any]] | Mapping[str, Any]

_OWN_CONFIG: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": END,
    "pad_token": END_OF_TEXT,
    "additional_special_tokens": [t for t in SPECIAL_TOKENS if t not in (END, END_OF_TEXT)],
    "clean_up_tokenization_spaces": False,
}
_OWN_GENERATION: dict[str, Any] = {"do_sample": True, "temperature": 0.7, "top_p": 0.95}
_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")
_BORDERS = (END_OF_TEXT, "<|end_of_text|>", "</s>")
"""What ends a document in the families' vocabularies, where a tokenizer has it."""
_OTHER_FILES = ("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model")


class Tokenizer:
    """Text to ids and back, and conversations to ids through the chat template.

    config: the content of `tokenizer_config.json`. generation_config: that of `generation_config.json`, which says how
    to sample, and which further tokens end an answer. files: what else came with them.
    end_id: ends the assistant's turn. end_of_text_id: the border of a document, and padding. stop_ids: any of them ends
    an answer.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        template: str = CHAT_TEMPLATE,
        config: Mapping[str, Any] | None = None,
        generation_config: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        today: date | None = None,
    ) -> None:
        self._backend, self._config, self._files = backend, dict(config or _OWN_CONFIG), dict(files or {})
        self._today = today
        tokens = {name: _token(value) for name, value in self._config.items() if name.endswith("_token")}
        special = [t.content for t in backend.get_added_tokens_decoder().values() if t.special]
        variables = {"bos_token": "", "eos_token": ""} | {name: token for name, token in tokens.items() if token}
        self.template = ChatTemplate(template, special or SPECIAL_TOKENS, variables, today)
        end = variables["eos_token"]
        borders = (*_BORDERS, variables.get("pad_token", ""), end)
        self.end_of_text_id = self._special(next((t for t in borders if backend.token_to_id(t) is not None), end))
        self.end_id = self._special(self.template.end_of_turn() or end)
        self.generation_config = dict(generation_config or _OWN_GENERATION)
        named = self.generation_config.get("eos_token_id")
        stops = {self.end_id, self.end_of_text_id, *([named] if isinstance(named, int) else named or [])}
        self.stop_ids = frozenset(stops if not end else stops | {self._special(end)})

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[Any, ...]]:
        """For another process, which compiles the template itself."""
        parts = (self._backend, self.template.source, self._config, self.generation_config, self._files, self._today)
        return Tokenizer, parts

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
    def load(directory: Path, backend: tokenizers.Tokenizer | None = None) -> Tokenizer:
        """Reads a tokenizer's files: `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` and the end
        tokens of `generation_config.json`, as far as they are there. backend: what `tokenizer.json` holds, if that is
        known already. Raises InputError."""
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise InputError(f"{directory}: no tokenizer.json there; copy the whole model directory")
        try:
            if backend is None:
                backend = tokenizers.Tokenizer.from_file(str(path))
                # Some are saved with those of their training; here the rows and the context decide.
                backend.no_truncation()
                backend.no_padding()
            path = directory / "tokenizer_config.json"
            config = _object(path)
            path = directory / "special_tokens_map.json"
            config = (_object(path) if path.is_file() else {}) | config
            path = directory / "generation_config.json"
            generation = _object(path) if path.is_file() else {}
            path = directory / "chat_template.jinja"
            template = path.read_text(encoding="utf-8") if path.is_file() else _template(config.get("chat_template"))
        except FileNotFoundError as error:
            raise InputError(f"{error.filename}: missing; copy the whole model directory") from None
        except Exception as error:  # the library raises plain Exception for damage
            raise InputError(f"{path}: damaged ({error}); copy the model again") from None
        files = {name: (directory / name).read_bytes() for name in _OTHER_FILES if (directory / name).is_file()}
        if not template:
            template = CHAT_TEMPLATE if backend.token_to_id(END) is not None else TURNS_TEMPLATE
        try:
            return Tokenizer(backend, template, config, generation, files)
        except InputError as error:
            raise InputError(f"{directory}: {error.message}") from None

    def save(self, directory: Path, *, max_positions: int) -> None:
        """Writes `tokenizer.json`, `tokenizer_config.json` with the template in it, and what else came with them."""
        config = {"model_max_length": max_positions, **self._config, "chat_template": self.template.source}
        write_atomically(directory / "tokenizer.json", [self.written])
        write_atomically(
            directory / "tokenizer_config.json", [json.dumps(config, ensure_ascii=False, indent=2).encode()]
        )
        for name, content in self._files.items():
            write_atomically(directory / name, [content])

    def beside(self, directory: Path) -> Tokenizer | None:
        """The tokenizer of a directory that has the same tokens, which are not read again; None if it has others.
        Raises InputError."""
        path = directory / "tokenizer.json"
        if path.read_bytes() != self.written:  # else it is known without parsing megabytes
            other = Tokenizer.load(directory)
            return other if other.written == self.written else None
        return Tokenizer.load(directory, self._backend)

    @cached_property
    def written(self) -> bytes:
        """Its tokens as `save` writes them to `tokenizer.json`; of a large vocabulary that takes a while."""
        return self._backend.to_str(pretty=False).encode()

    def with_template(self, template: str) -> Tokenizer:
        """The same tokens under another chat template."""
        return Tokenizer(self._backend, template, self._config, self.generation_config, self._files)

    def dated(self, today: date) -> Tokenizer:
        """The same under one date, for templates that tell it: what is trained on must not change overnight."""
        files = self._files
        return Tokenizer(self._backend, self.template.source, self._config, self.generation_config, files, today)

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """What the `tokenizers` library made of it."""
        return self._backend

    @property
    def vocab_size(self) -> int:
        return self._backend.get_vocab_size()

    @property
    def highest_id(self) -> int:
        """Of any token; there may be fewer tokens than ids."""
        return max(self._backend.get_vocab().values())

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; special tokens written in it stay text only if the caller took them out."""
        return self._encodings([text], offsets=False)[0].ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts, in parallel."""
        return [e.ids for e in self._encodings(texts, offsets=False)]

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text on its own, as the model has read them: behind what begins a text, where the vocabulary has it
        (`<s>`). Nothing is the border of a document, behind which one begins."""
        return self._encodings([text], offsets=False, special=True)[0].ids or [self.end_of_text_id]

    def token(self, number: int) -> tuple[str, bytes | None]:
        """A token as it is written, and its bytes: None for a special one, which is no text. What is no character is
        written as escapes: `\\xe6\\xb3`."""
        written = self._backend.id_to_token(number) or ""  # a model may have more rows than there are tokens
        if number in self._special_ids:
            return written, None
        if self.pieces is not None:
            piece = self.pieces[number] if number < len(self.pieces) else b""
        elif _BYTE_TOKEN.fullmatch(written):  # of vocabularies that fall back to bytes
            piece = bytes([int(written[3:5], 16)])
        else:
            piece = written.replace("\u2581", " ").encode()
        return piece.decode("utf-8", "backslashreplace"), piece

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(i for i, token in self._backend.get_added_tokens_decoder().items() if token.special)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, special tokens left out. Bytes that are not UTF-8 (yet) become U+FFFD."""
        return self._backend.decode(list(ids), skip_special_tokens=True)

    @cached_property
    def pieces(self) -> list[bytes] | None:
        """Of a byte-level vocabulary the bytes of each id, none for special tokens; None of any other."""
        decoder = json.loads(self._backend.to_str())["decoder"]
        if decoder is None or decoder["type"] != "ByteLevel":
            return None
        special = self._special_ids
        size = max(self._backend.get_vocab().values()) + 1
        pieces = [b""] * size
        for token, number in self._backend.get_vocab().items():
            if number not in special:
                known = all(c in _BYTES for c in token)
                pieces[number] = bytes(_BYTES[c] for c in token) if known else token.encode()
        return pieces

    def encode_prompt(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """Ids of a conversation up to where the assistant begins to speak. tools: functions that it may call."""
        return self.encode(self.template.render(messages, add_generation_prompt=True, tools=tools).text)

    def encode_conversation(self, messages: Dialogue) -> tuple[list[int], list[bool]]:
        """Ids of a whole conversation, and for each whether the assistant says it (the supervised mask).

        An assistant's message with `weight` 0 is not supervised.
        """
        ((ids, mask),) = self.encode_conversations([messages])
        return ids.tolist(), mask.tolist()

    def encode_conversations(
        self, conversations: Iterable[Dialogue]
    ) -> Iterator[tuple[NDArray[np.int32], NDArray[np.bool_]]]:
        """Ids and mask of each conversation, as `encode_conversation` gives them; a thousand at a time in parallel. One
        with functions is an object of `messages` and `tools`."""
        remaining = map(_parts, conversations)
        while some := list(islice(remaining, CONVERSATIONS_AT_ONCE)):
            rendered = [self.template.render(messages, tools=tools) for messages, tools in some]
            spans = [_supervised(r.spans, messages) for r, (messages, _) in zip(rendered, some, strict=True)]
            for encoding, supervised in zip(self._encodings([r.text for r in rendered]), spans, strict=True):
                begins = np.array([begin for begin, _ in encoding.offsets], np.int32)
                mask = np.zeros(len(begins), np.bool_)
                for first, last in supervised:
                    mask |= (first <= begins) & (begins < last)
                yield np.array(encoding.ids, np.int32), mask

    def _encodings(
        self, texts: Sequence[str], *, offsets: bool = True, special: bool = False
    ) -> list[tokenizers.Encoding]:
        encode = self._backend.encode_batch if offsets else self._backend.encode_batch_fast
        try:
            return encode(list(texts), add_special_tokens=special)
        except TypeError:  # the library takes UTF-8 only, and JSON may hold half a surrogate pair
            raise InputError("the text has characters that are not valid Unicode; take them out") from None

    def _special(self, token: str) -> int:
        number = self._backend.token_to_id(token)
        if number is None:
            raise InputError(
                f"the tokenizer has no token {token!r}, which ends its texts; copy the whole model directory"
            )
        return int(number)


def _parts(dialogue: Dialogue) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]] | None]:
    """Messages and functions."""
    return (dialogue["messages"], dialogue.get("tools")) if isinstance(dialogue, Mapping) else (dialogue, None)


def _supervised(spans: Sequence[Span], messages: Sequence[Mapping[str, Any]]) -> list[Span]:
    """The spans of the assistant's messages but those of weight 0."""
    weights = [m.get("weight") for m in messages if m["role"] == "assistant"]
    if len(weights) != len(spans):  # a template may mark an answer in several parts
        if any(weight == 0 for weight in weights):
            raise InputError("messages of weight 0 need a chat template that marks each answer once")
        return list(spans)
    return [span for span, weight in zip(spans, weights, strict=True) if weight != 0]


def _object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise TypeError("expected a JSON object")
    return value


def _token(value: Any) -> str:
    """A special token as `tokenizer_config.json` spells it: text, or an object with the text in it."""
    return str(value.get("content", "")) if isinstance(value, dict) else value if isinstance(value, str) else ""


def _template(value: Any) -> str | None:
    """The chat template of `tokenizer_config.json`, where it may be a list of named ones."""
    if isinstance(value, list):
        named = {entry["name"]: entry["template"] for entry in value}
        return named.get("default") or next(iter(named.values()), None)
    return value if isinstance(value, str) else None
