"""Names that are none of our variables and look like one: a slip would leave the setting at its default."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import SequenceMatcher

_ALIKE = 0.85
"""How much of both names is the same, from 0 to 1."""
_ALIKE_WORD = 0.6
"""The same of each word. ``EXTERNAL_CRM_API_TOKEN`` is another thing than ``EXTERNAL_CRM_API_KEY``."""


def misspelt(given: Collection[str], ours: Iterable[str]) -> list[str]:
    """What to say of each name that must be a slip, because the variable it looks like is not given.

    ``given`` and ``ours`` are in capitals.
    """
    known = set(ours)
    missing = sorted(known.difference(given))
    return [
        f"{name} is no setting; {like} is"
        for name in sorted(set(given) - known)
        if (like := next((each for each in missing if _alike(name, each)), None)) is not None
    ]


def _alike(name: str, other: str) -> bool:
    words, others = name.split("_"), other.split("_")
    return (
        not _goes_on(name, other)
        and len(words) == len(others)
        and _share(name, other) >= _ALIKE
        and all(_share(*pair) >= _ALIKE_WORD for pair in zip(words, others, strict=True))
    )


def _goes_on(name: str, other: str) -> bool:
    """Whether it is the other and more: ``RATE_LIMITER`` is meant, and so is ``EXTERNAL_CRM_API_KEY2``."""
    more = name.removeprefix(other)
    return name.startswith(other) and (len(more) > 1 or more.isdigit())


def _share(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()
