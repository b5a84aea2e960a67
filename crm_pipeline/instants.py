"""Instants: time zone aware moments and the one text form they are kept and compared in."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson


def now() -> datetime:
    """The clock, aware and in UTC."""
    return datetime.now(UTC)


def to_text(instant: datetime) -> str:
    """``2026-01-31T09:00:00.000000Z``: fixed width, so that text order is time order.

    Raises:
        ValueError: the instant is naive.
        OverflowError: it lies outside the years 1 to 9999 in UTC.
    """
    if instant.tzinfo is not UTC:
        if instant.tzinfo is None:
            msg = "a naive time is no instant"
            raise ValueError(msg)
        instant = instant.astimezone(UTC)
    text = orjson.dumps(instant, None, orjson.OPT_UTC_Z)[1:-1].decode()
    return text if "." in text else f"{text[:-1]}.000000Z"  # Python's isoformat takes four times as long


def from_text(text: str) -> datetime:
    """Read ISO 8601; a time without a zone, as SQL programs write it, is UTC.

    Raises:
        ValueError: not a time, or none of the years 1 to 9999 in UTC.
    """
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is UTC:
        return instant
    try:
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except OverflowError:
        msg = "the time lies outside the years 1 to 9999"
        raise ValueError(msg) from None
