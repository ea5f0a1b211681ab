"""Text between a beginning and an end (Bavarian et al., 2022), for models whose tokens mark the parts."""

from __future__ import annotations

from chatwheel.errors import InputError
from chatwheel.model.tokenizer import Tokenizer

# What stands before the beginning, before the end, and before the middle, which the model writes last.
MARKS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, SmolLM
    ("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"),  # CodeLlama
    ("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),  # DeepSeek-Coder
)
# Beside the marks, what such models write when the middle is complete.
ENDS = ("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<fim_pad>", "<file_sep>", "\u2581<EOT>")


def fill_in_the_middle(tokenizer: Tokenizer, prefix: str, suffix: str) -> tuple[list[int], tuple[int, ...]]:
    """The prompt after which a model writes what is between two texts, and further tokens that end it. Raises
    InputError for a vocabulary without such tokens."""

    def number(token: str) -> int | None:
        return tokenizer.backend.token_to_id(token)

    for marks in MARKS:
        before, behind, middle = map(number, marks)
        if before is not None and behind is not None and middle is not None:
            begin, beginning = tokenizer.encode_text(""), tokenizer.encode(prefix)
            begin = [token for token in begin if token != tokenizer.end_of_text_id]  # `<s>` where there is one
            ends = [found for token in ENDS if (found := number(token)) is not None]
            ids = [*begin, before, *beginning, behind, *tokenizer.encode(suffix), middle]
            return ids, (before, behind, middle, *ends)
    raise InputError(
        "This model can't fill in the middle: its vocabulary has no tokens for it, as those of code models have; leave "
        "'suffix' out.",
        param="suffix",
    )
