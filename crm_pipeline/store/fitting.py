"""What a column can hold: SQLite lets other programs store anything anywhere, PostgreSQL does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn, TypeAlias

import sqlalchemy as sa

from crm_pipeline.store.types import Instant, OpenJson

Check: TypeAlias = Callable[[Any], str]
"""Says what is wrong with a value, in words without it; empty when nothing is."""


def fits(column: sa.Column[Any], dialect: str) -> Check:
    """What a column of this database asks of a value that is not null, JSON being text."""
    if dialect == "sqlite":
        return lambda value: _encodable(value) if isinstance(value, str) else ""
    return next((check for kind, check in _CHECKS if isinstance(column.type, kind)), _text)


def canonical_json(text: Any) -> Any:
    """Equal for equal documents, however written: numbers by value, keys in order. Other text as it is."""
    try:
        return _canonical(_exact(text))
    except (TypeError, ValueError, RecursionError):
        return text


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return "is no text"
    return "holds a zero character" if "\0" in value else _encodable(value)


def _encodable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        return "is no valid Unicode"
    return ""


def _json(value: Any) -> str:
    try:
        texts = set(_texts(_exact(value)))
    except (TypeError, ValueError, RecursionError):
        return "is no JSON"
    return next((problem for problem in map(_text, texts) if problem), "")


def _exact(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_constant=_refuse)


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _texts(each)


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, _canonical(value[key])) for key in sorted(value)]
    if isinstance(value, list):
        return [[_canonical(each) for each in value]]
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return _number(Decimal(value))
    return value


def _number(value: Decimal) -> tuple[int, str, int] | int:
    """Without zeros that say nothing; not written out, because ``1e999999999`` is short only so."""
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    short = text.rstrip("0")
    return (sign, short, int(exponent) + len(text) - len(short)) if short else 0


def _integer(most: int) -> Check:
    return lambda value: "" if isinstance(value, int) and -most <= value < most else "is no such integer"


_CHECKS: tuple[tuple[type[Any], Check], ...] = (
    (Instant, lambda value: "" if isinstance(value, datetime) else "is no time"),
    (OpenJson, _json),
    (sa.Boolean, lambda _: ""),
    (sa.BigInteger, _integer(2**63)),
    (sa.Integer, _integer(2**31)),
    (sa.Float, lambda value: "" if isinstance(value, int | float) else "is no number"),
)
"""What PostgreSQL's columns ask; the first kind that fits, and text where none does."""
