"""The part of SOQL that a sync of contacts needs: fields, simple conditions joined by AND, one order."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_QUERY = re.compile(
    r"\s*SELECT\s+(?P<fields>.+?)\s+FROM\s+Contact"
    r"(?:\s+WHERE\s+(?P<where>.+?))?(?:\s+ORDER\s+BY\s+(?P<order>[\w.,\s]+?))?(?:\s+LIMIT\s+(?P<limit>[0-9]+))?\s*",
    re.IGNORECASE | re.DOTALL,
)
_PIECE = re.compile(
    r"""\s*(?:(?P<text>'(?:[^'\\]|\\.)*')|(?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(?:Z|[+-][0-9:]+))
    |(?P<word>[\w.]+)|(?P<sign>>=|<=|!=|=|<|>|\(|\)|,))""",
    re.VERBOSE,
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left is not None and left < right,
    "<=": lambda left, right: left is not None and left <= right,
    ">": lambda left, right: left is not None and left > right,
    ">=": lambda left, right: left is not None and left >= right,
}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class QueryError(ValueError):
    """A query Salesforce answers 400 MALFORMED_QUERY."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison; ``in`` compares with several values."""

    field: str
    sign: str
    value: Any

    def holds(self, record: dict[str, Any]) -> bool:
        """Whether a record fulfils it."""
        own = record.get(self.field)
        if isinstance(self.value, datetime):
            own = datetime.fromisoformat(own) if own else None
        return own in self.value if self.sign == "in" else _COMPARE[self.sign](own, self.value)


@dataclass(frozen=True, slots=True)
class Query:
    """A query, understood."""

    fields: tuple[str, ...]
    conditions: tuple[Condition, ...]
    order: tuple[str, ...]
    limit: int | None

    @classmethod
    def parsed(cls, text: str) -> Query:
        """Read SOQL.

        Raises:
            QueryError: it is none, or more of it than this simulator knows.
        """
        found = _QUERY.fullmatch(text)
        if found is None:
            raise QueryError("unexpected token")
        fields = tuple(name.strip() for name in found["fields"].split(","))
        order = tuple(name.split()[0] for name in (found["order"] or "").split(",") if name.strip())
        limit = int(found["limit"]) if found["limit"] else None
        return cls(fields, tuple(_conditions(found["where"] or "")), order, limit)

    def since(self) -> datetime | None:
        """The earliest modified time that it asks for."""
        times = [
            each.value
            for each in self.conditions
            if each.field == "SystemModstamp" and each.sign in {">", ">="}
        ]
        return max(times, default=None)


def _conditions(text: str) -> list[Condition]:
    pieces = _pieces(text)
    found = []
    while pieces:
        name, sign = pieces.pop(0), str(pieces.pop(0) if pieces else "").lower()
        found.append(Condition(str(name), sign, _value(pieces, sign)))
        if pieces and str(pieces.pop(0)).lower() != "and":
            raise QueryError("only AND joins conditions here")
    return found


def _value(pieces: list[Any], sign: str) -> Any:
    if not pieces or (sign != "in" and sign not in _COMPARE):
        raise QueryError("a comparison is not complete")
    if sign != "in":
        return _plain(pieces.pop(0))
    values = []
    if pieces.pop(0) != "(":
        raise QueryError("a list is needed after IN")
    while pieces and pieces[0] != ")":
        piece = pieces.pop(0)
        if piece != ",":
            values.append(_plain(piece))
    if not pieces:
        raise QueryError("a list does not end")
    pieces.pop(0)
    return values


class _Text(str):
    """A quoted text: never a word of the language."""

    __slots__ = ()


def _pieces(text: str) -> list[Any]:
    pieces: list[Any] = []
    position = 0
    while text[position:].strip():
        found = _PIECE.match(text, position)
        if found is None:
            raise QueryError("unexpected token")
        position = found.end()
        if found["text"]:
            pieces.append(
                _Text(
                    _ESCAPE.sub(
                        lambda each: {"n": "\n", "t": "\t"}.get(each[1], each[1]), found["text"][1:-1]
                    )
                )
            )
        elif found["time"]:
            pieces.append(datetime.fromisoformat(found["time"]))
        else:
            pieces.append(found["word"] or found["sign"])
    return pieces


def _plain(piece: Any) -> Any:
    if isinstance(piece, _Text | datetime):
        return str(piece) if isinstance(piece, _Text) else piece
    words = {"true": True, "false": False, "null": None}
    if str(piece).lower() not in words:
        raise QueryError("a value is neither quoted nor a time")
    return words[str(piece).lower()]
