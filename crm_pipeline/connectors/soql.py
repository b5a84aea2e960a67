"""SOQL made of checked pieces: nothing that a record, a cursor or a file says can change a query. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from crm_pipeline.connectors.base import ConnectorSetupError, Window

_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,80}(?:\.[A-Za-z][A-Za-z0-9_]{0,80}){0,5}")
_ID = re.compile(r"[a-zA-Z0-9]{15}(?:[a-zA-Z0-9]{3})?")
_ESCAPES = str.maketrans(
    {"\\": "\\\\", "'": "\\'", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
)
ORDER = "ORDER BY SystemModstamp, Id"


def field(name: str) -> str:
    """A field's name, checked.

    Raises:
        ConnectorSetupError: it is none.
    """
    if not _FIELD.fullmatch(name):
        raise ConnectorSetupError("a field of the connection is not the name of a Salesforce field")
    return name


def is_id(text: str) -> bool:
    """Tell whether a text is a Salesforce id, of 15 or 18 characters."""
    return _ID.fullmatch(text) is not None


def literal(text: str) -> str:
    """A text as SOQL writes it: the backslash first, then the quote."""
    return f"'{text.translate(_ESCAPES)}'"


def moment(when: datetime) -> str:
    """A time as SOQL writes it, to the second."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def select(fields: Iterable[str], *conditions: str, order: str = "") -> str:
    """A query of contacts; conditions are made by the functions here."""
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    query = ("SELECT", ",".join(fields), f"FROM Contact{where}", order)
    return " ".join(filter(None, query))


def within(window: Window) -> list[str]:
    """Conditions of a window; its end is widened to the next second."""
    conditions = []
    if window.since is not None:
        conditions.append(f"SystemModstamp >= {moment(window.since)}")
    if window.until is not None:
        conditions.append(f"SystemModstamp <= {moment(window.until)}")
    return conditions


def one_of(ids: Sequence[str]) -> str:
    """The condition that a record's id is one of these, all of them checked by ``is_id``."""
    return f"Id IN ({','.join(literal(each) for each in ids)})"
