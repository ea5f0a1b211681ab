"""Personal data in text: what can be told by its form is replaced by a mark, and counted.

Names and addresses can't be told by their form; this is a net for what a corpus holds by accident, not anonymisation.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])", re.ASCII)
_ADDRESS = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]|\w)", re.ASCII)
_ADDRESS6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:])", re.ASCII)
_CARD = re.compile(r"(?<![\d.-])(?:\d[ -]?){12,18}\d(?![\d-])", re.ASCII)
_CHINESE_ID = re.compile(
    r"(?<!\d)[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])\d{3}[\dXx](?![\dA-Za-z])", re.ASCII
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", re.ASCII)
_SOCIAL_SECURITY = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])", re.ASCII)
_KEY = re.compile(
    r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,}|hf_[A-Za-z0-9]{30,}|xox[abp]-[0-9A-Za-z-]{20,255}+"
    r"|AKIA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35}|glpat-[A-Za-z0-9_-]{20})(?![\w-])",
    re.ASCII,
)
# These two take all that may belong to them, and are told by a look at the whole: an expression that gave up would read
# it again from each place within where it might begin.
_SECRET_KEY = re.compile(r"\bsk-[\w-]{20,}", re.ASCII)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.*?-----END [A-Z ]*PRIVATE KEY-----|.*)", re.DOTALL)
_END_OF_PRIVATE_KEY = re.compile(r"-----END [A-Z ]*PRIVATE KEY-----")
# A number with a country's code, a Chinese mobile, or one in the North American manner.
_PHONE = re.compile(
    r"(?<![\w+.-])(?:"
    r"\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){1,4}"
    r"|1[3-9]\d[ -]?\d{4}[ -]?\d{4}"
    r"|\(\d{3}\)[ .-]?\d{3}[ .-]\d{4}"
    r"|\d{3}[.-]\d{3}[.-]\d{4}"
    r"|0\d{2,3}-\d{7,8}"
    r")(?![\w-]|\.\d)",
    re.ASCII,
)


def _luhn(number: str) -> bool:
    digits = [int(c) for c in number if c.isdigit()]
    doubled = [sum(divmod(2 * d, 10)) if i % 2 else d for i, d in enumerate(reversed(digits))]
    length = {3: (14, 15, 16), 4: (13, 16, 19), 5: (16,), 6: (16, 17, 18, 19)}.get(digits[0], ())  # by the issuer
    return len(digits) in length and sum(doubled) % 10 == 0


def _chinese_id(number: str) -> bool:
    """GB 11643-1999: the last character is a checksum modulo 11."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(d) * w for d, w in zip(number[:17], weights, strict=True))
    return "10X98765432"[total % 11] == number[17].upper()


def _iban(text: str) -> bool:
    """ISO 13616: modulo 97 is 1."""
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _public_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    # a::b is an address too, and far more often a name in C++.
    return address.is_global and len(text) >= 7 and any(c.isdigit() for c in text)


def _secret_key(text: str) -> bool:
    return any("0" <= c <= "9" for c in text) and any("A" <= c <= "Z" for c in text)


def _closed(private_key: str) -> bool:
    return _END_OF_PRIVATE_KEY.search(private_key) is not None


def _phone(text: str) -> bool:
    return (10 if text.startswith("+") else 7) <= sum(c.isdigit() for c in text) <= 15


def _always(_: str) -> bool:
    return True


# In this order: a card's digits are no telephone number, and a key is no word.
_KINDS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("private key", _PRIVATE_KEY, _closed),
    ("key", _SECRET_KEY, _secret_key),
    ("key", _KEY, _always),
    ("email", _EMAIL, _always),
    ("id", _CHINESE_ID, _chinese_id),
    ("iban", _IBAN, _iban),
    ("card", _CARD, _luhn),
    ("id", _SOCIAL_SECURITY, _always),
    ("ip", _ADDRESS, _public_address),
    ("ip", _ADDRESS6, _public_address),
    ("phone", _PHONE, _phone),
)
# re.ASCII throughout: a Chinese character beside a number is no part of it.
_HINT = re.compile(r"@|\d[\d .()-]{5,}\d|:[0-9A-Fa-f]{0,4}:|[A-Za-z]_|sk-|xox|AKIA|AIza|glpat|PRIVATE KEY")


def mask(text: str, found: Counter[str] | None = None) -> str:
    """The text with `<email>`, `<phone>`, `<ip>`, `<card>`, `<iban>`, `<id>`, `<key>` in place of them; `found` is
    counted up by kind. Private, reserved and documentation addresses stay, and numbers whose checksum is wrong."""
    if _HINT.search(text) is None:  # most texts
        return text
    for kind, pattern, is_one in _KINDS:

        def replaced(match: re.Match[str], kind: str = kind, is_one: Callable[[str], bool] = is_one) -> str:
            if not is_one(match.group()):
                return match.group()
            if found is not None:
                found[kind] += 1
            return f"<{kind}>"

        text = pattern.sub(replaced, text)
    return text
