"""How a CRM rewrites what it is given, so that an answer differs from what was sent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

PHONE_FIELDS = ("phone", "whatsapp_id", "phone_1", "phone_2", "contact_phone")
LOWER_FIELDS = ("email", "instagram", "social_media")
DATE_FIELDS = ("meeting_date", "sale_date", "event_date")
NOTES_FIELDS = ("notes", "description")

HABITS = "trim, lower, phones, drop_seconds, notes_max=N, all"

_CLOCK = re.compile(r"(T\d\d:\d\d):\d\d(?:\.\d+)?")
_LOCAL_PREFIX = "0"
_COUNTRY_CODE = "62"


class RewriteError(ValueError):
    """A rewriting habit is spelt wrongly; the text says what is accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """The habits of one CRM; all off means it keeps what it is given, letter by letter."""

    trim: bool = False
    """Outer blanks go, inner runs of blanks become one."""
    lower: bool = False
    """E-mail addresses and Instagram names become lower case."""
    phones: bool = False
    """Phones become ``+`` and digits; ``@c.us`` and separators go. ``…@lid`` and ``…@g.us`` stay."""
    drop_seconds: bool = False
    """Seconds of the contact's dates become zero."""
    notes_max: int = 0
    """Notes are cut to so many characters; 0 keeps them whole."""

    def field(self, name: str, value: Any) -> Any:
        """What the CRM stores for one attribute. Only text changes."""
        if not isinstance(value, str):
            return value
        if self.trim:
            value = " ".join(value.split())
        if self.lower and name in LOWER_FIELDS:
            value = value.lower()
        if self.phones and name in PHONE_FIELDS:
            value = _plus_and_digits(value)
        if self.drop_seconds and name in DATE_FIELDS:
            value = _CLOCK.sub(r"\1:00", value)
        if self.notes_max and name in NOTES_FIELDS:
            value = value[: self.notes_max]
        return value

    def record(self, fields: dict[str, Any]) -> dict[str, Any]:
        """What the CRM stores for several attributes."""
        if self == _KEEP:
            return fields
        return {name: self.field(name, value) for name, value in fields.items()}


_KEEP = Rewrite()


def _plus_and_digits(phone: str) -> str:
    if phone.endswith(("@lid", "@g.us")):
        return phone
    digits = re.sub(r"\D", "", phone)
    if digits.startswith(_LOCAL_PREFIX):
        digits = _COUNTRY_CODE + digits[1:]
    return f"+{digits}" if digits else phone


def parse_rewrite(texts: Iterable[str]) -> Rewrite:
    """Habits spelt ``trim``, ``lower``, ``phones``, ``drop_seconds``, ``notes_max=N``, or ``all``.

    Raises:
        RewriteError: unknown habit or a wrong number.
    """
    habits = Rewrite()
    for text in texts:
        name, _, value = text.strip().partition("=")
        if name == "all" and not value:
            habits = Rewrite(trim=True, lower=True, phones=True, drop_seconds=True, notes_max=200)
        elif name in {"trim", "lower", "phones", "drop_seconds"} and not value:
            habits = replace(habits, **{name: True})
        elif name == "notes_max" and value.isdecimal() and int(value):
            habits = replace(habits, notes_max=int(value))
        else:
            raise RewriteError(f"there is no rewriting {text!r}; choose from {HABITS}")
    return habits
