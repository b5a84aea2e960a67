"""The push plan: which fields of which contacts the CRM has still to hear of. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from crm_pipeline.connection import Direction
from crm_pipeline.store.links import Link
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import FieldMapping, Translator, Values
from crm_pipeline.sync.reports import Outcome
from crm_pipeline.sync.selection import takes_part


class PlannedWrite(NamedTuple):  # a frozen dataclass takes three times as long to make
    """What one contact needs written."""

    contact_id: str
    contact_version: int
    external_id: str | None
    """None: the CRM does not have it yet."""
    before: Values
    """What the CRM was last seen to hold in the fields written."""
    sent: Values
    payload: dict[str, Any]
    expected: datetime | None
    """The record's modified time as last read."""
    shown: frozenset[str]
    """Keys a full record has: an answer with fewer shows only a part of it."""


def plan_write(
    mapping: FieldMapping,
    translator: Translator,
    contact_id: str,
    contact_version: int,
    canonical: tuple[Values, Mapping[str, str]],
    link: Link | None,
    dirty: Sequence[str],
    known: dict[str, Any] | None,
) -> PlannedWrite | Outcome:
    """What to write for a contact; or that it is unchanged (the CRM knows it all) or skipped by a rule.

    ``canonical``: its values, and what is wrong with some, as the mapping tells them.
    ``dirty``: what ``to_write`` says.

    Raises:
        RecordRejected: a value that has to be written is none its field can hold.
    """
    values, reasons = canonical
    if not takes_part(mapping.outward, values, {}):
        return Outcome.SKIPPED
    if not dirty:
        return Outcome.UNCHANGED
    wrong = {key: reason for key, reason in reasons.items() if link is None or _name(mapping, key) in dirty}
    if wrong:
        raise RecordRejected(wrong)
    sent = {name: values.get(name) for name in dirty}
    external, agreed = ({}, {}) if link is None else (link.external_shadow, link.internal_shadow)
    payload = translator.to_external(values, dirty, agreed, known)
    if not payload:
        return Outcome.UNCHANGED
    return PlannedWrite(
        contact_id=contact_id,
        contact_version=contact_version,
        external_id=link.external_id if link is not None else None,
        before={name: external[name] for name in dirty if name in external},
        sent=sent,
        payload=payload,
        expected=link.external_modified_at if link is not None else None,
        shown=frozenset(known if known is not None else payload),
    )


def to_write(
    mapping: FieldMapping, values: Values, noticed: Iterable[str] | None, held: Container[str]
) -> list[str]:
    """The fields to be written, without those that wait for a person.

    Of a linked contact what was ``noticed`` that the CRM has to hear of. Of one that is to be made there
    (None) all that are filled, and those without which no record can be made.
    """
    if noticed is None:
        noticed = (
            name
            for name, field in mapping.fields.items()
            if field.direction is not Direction.IN
            and (values[name] is not None or field.placeholder is not None)
        )
    return [name for name in noticed if name not in held]


def _name(mapping: FieldMapping, json_name: str) -> str | None:
    return next((name for name, field in mapping.fields.items() if field.json_name == json_name), None)
