"""Rewriting: whether a value could be what a CRM made of the one it was given.

Used only between our write and the first time the CRM shows the field again, and only
where its answer did not show it at once. Anything else is an edit, and treated as one.
"""

from __future__ import annotations

import re
from datetime import datetime

from crm_pipeline import instants
from crm_pipeline.sync.coerce import Value, comparable

_SHORTEST_TRUNCATION = 32
"""Characters. Cut shorter than any CRM's field limit, it was cut by a person."""
_FEWEST_PHONE_DIGITS = 6
_NOT_DIGITS = re.compile(r"[^0-9]")
_WHATSAPP = re.compile(r"@(?:c\.us|s\.whatsapp\.net)\Z")
_PHONE = re.compile(r"[0-9\s()+./\u2010-\u2015-]*")


def looks_rewritten(written: Value, seen: Value) -> bool:
    """Whether ``seen`` could be ``written`` after a CRM's usual tidying.

    Trimmed or collapsed blanks, another case, text cut to a length, a phone number with
    other punctuation, a time cut to milliseconds, seconds, minutes or days, nothing for
    a blank text.
    """
    if _blank(written) and _blank(seen):
        return True
    if not isinstance(written, str) or not isinstance(seen, str):
        return False
    then, now = _instant(written), _instant(seen)
    if then is not None and now is not None:
        return _same_moment(then, now)
    mine, theirs = _folded(written), _folded(seen)
    if mine == theirs:
        return True
    if len(theirs) >= _SHORTEST_TRUNCATION and mine.startswith(theirs):
        return True
    return _same_phone(mine, theirs)


def _blank(value: Value) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _folded(text: str) -> str:
    return " ".join(comparable(text).casefold().split())


def _same_phone(mine: str, theirs: str) -> bool:
    mine, theirs = _WHATSAPP.sub("", mine), _WHATSAPP.sub("", theirs)
    if not (_PHONE.fullmatch(mine) and _PHONE.fullmatch(theirs)):
        return False
    mine, theirs = _NOT_DIGITS.sub("", mine), _NOT_DIGITS.sub("", theirs)
    return len(mine) >= _FEWEST_PHONE_DIGITS and mine == theirs


def _instant(text: str) -> datetime | None:
    """The instant a text is, in the one form instants have here."""
    try:
        instant = instants.from_text(text)
    except ValueError:
        return None
    return instant if instants.to_text(instant) == text else None


def _same_moment(written: datetime, seen: datetime) -> bool:
    thousandths = written.microsecond // 1000 * 1000
    return seen in (
        written.replace(microsecond=thousandths),
        written.replace(microsecond=0),
        written.replace(second=0, microsecond=0),
        written.replace(hour=0, minute=0, second=0, microsecond=0),
    )
