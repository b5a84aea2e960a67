"""Rules of the connection file that hold for single vendors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crm_pipeline.connection import Connection

_WORD = "[A-Za-z][A-Za-z0-9_]{0,99}"
_FIELDS = {
    "hubspot": re.compile(r"(?:properties\.)?[A-Za-z0-9_]{1,100}"),
    "salesforce": re.compile(rf"{_WORD}(?:\.{_WORD}){{0,5}}"),
    "zoho": re.compile(rf"{_WORD}(?:\.{_WORD})*"),
}
"""How fields are called: the vendors are asked for them by name."""


def check_vendor(connection: Connection) -> None:
    """Check what only a vendor knows, or does not know.

    Raises:
        ValueError: with the key that is wrong.
    """
    kind = connection.type.value
    if connection.writing.bulk_from is not None and kind != "salesforce":
        msg = "writing.bulk_from: goes with 'type: salesforce', which has such jobs"
        raise ValueError(msg)
    if connection.webhook.public_url is not None and kind != "zoho":
        msg = "webhook.public_url: goes with 'type: zoho', whose channels the pipeline keeps"
        raise ValueError(msg)
    form = _FIELDS.get(kind)
    for key, path in _named(connection) if form else ():
        if form and not form.fullmatch(path):
            msg = f"{key}: '{path}' is not the name of a field in {kind}"
            raise ValueError(msg)


def _named(connection: Connection) -> Iterator[tuple[str, str]]:
    """Names of fields, with the key that says each."""
    for name, rule in connection.fields.items():
        for path in (*(rule.names or ()), *(rule.parts or ()), *filter(None, [rule.write])):
            yield f"fields.{name}", path
    if connection.writing.upsert_by is not None:
        yield "writing.upsert_by", connection.writing.upsert_by
