"""Which language a text is in, by py3langid (Lui & Baldwin, 2012): 139 languages, a model of 4 MB, no download.

`sources.language.language_of` only tells Chinese from English, which tags records; here French is French, so that what
is in no wanted language can be dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from chatwheel.errors import InputError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

NO_LANGUAGE = "zxx"
"""ISO 639's code for what is no language: numbers, markup, identifiers."""

_PIECE = 600
_CHINESE = ("yue", "wuu")  # ISO 639 counts both to `zh`, and in writing they are often hardly told from it


def identify(text: str) -> str:
    """The ISO 639 code of a text's language: "en", "zh", ...; NO_LANGUAGE for what is none. Cantonese and Wu are "zh".

    600 characters from the beginning and as many from the middle are read: a beginning alone may be a heading in
    another language. Raises InputError if py3langid is not installed.
    """
    middle = max(_PIECE, (len(text) - _PIECE) // 2)
    # Half a surrogate pair, which JSON's escapes may hold, is no UTF-8.
    sample = f"{text[:_PIECE]}\n{text[middle : middle + _PIECE]}".encode("utf-8", "ignore").decode()
    if not any(map(str.isalpha, sample)):
        return NO_LANGUAGE
    found, _ = _identifier().classify(sample)
    return "zh" if found in _CHINESE else str(found)


def require(languages: Sequence[str]) -> None:
    """Raises InputError if languages can't be told, or if one of them is not known."""
    known = set(_identifier().labels) - {NO_LANGUAGE, *_CHINESE}
    for language in languages:
        if language not in known:
            raise InputError(
                f"languages: {language!r} is not known; ISO 639 codes are, like {', '.join(sorted(known))}"
            )


@cache
def _identifier() -> LanguageIdentifier:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise InputError(
            "telling languages needs py3langid: pip install 'chatwheel[languages]', or leave languages out"
        ) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE)
