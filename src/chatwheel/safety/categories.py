"""OpenAI's thirteen categories of harm, in the order of its moderation guide."""

from __future__ import annotations

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)

PARENTS = {name: name.partition("/")[0] for name in CATEGORIES if "/" in name}
"""What falls into a category below one falls into that one too."""
