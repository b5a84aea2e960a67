"""The push plan: which fields of which contacts the CRM has still to hear of. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crm_pipeline.connection import Direction
from crm_pipeline.store.links import Link
from crm_pipeline.sync.coerce import Value
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import CompiledField, FieldMapping, Translator, Values
from crm_pipeline.sync.merge import ABSENT, to_push
from crm_pipeline.sync.reports import Outcome
from crm_pipeline.sync.selection import takes_part


@dataclass(frozen=True, slots=True)
class PlannedWrite:
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
    held: Collection[str],
    known: dict[str, Any] | None,
) -> PlannedWrite | Outcome:
    """What to write for a contact; or that it is unchanged (the CRM knows it all) or skipped by a rule.

    ``canonical``: its values, and what is wrong with some, as the mapping tells them.

    Raises:
        RecordRejected: a value that has to be written is none its field can hold.
    """
    values, reasons = canonical
    if not takes_part(mapping.outward, values, {}):
        return Outcome.SKIPPED
    shadow = link.internal_shadow if link is not None else {}
    dirty = [
        name
        for name, field in mapping.fields.items()
        if (
            # Most fields are equal, which is cheap to see.
            (values[name] != shadow.get(name, ABSENT) and _is_news(values[name], shadow, field))
            or (link is None and _must_be_filled(field))
        )
        and name not in held
    ]
    if not dirty:
        return Outcome.UNCHANGED
    wrong = {key: reason for key, reason in reasons.items() if link is None or _name(mapping, key) in dirty}
    if wrong:
        raise RecordRejected(wrong)
    sent = {name: values.get(name) for name in dirty}
    external = link.external_shadow if link is not None else {}
    payload = translator.to_external(values, dirty, dict(shadow), known)
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


def _is_news(value: Value, shadow: Values, field: CompiledField) -> bool:
    return to_push(value, shadow.get(field.name, ABSENT), field.direction)


def _must_be_filled(field: CompiledField) -> bool:
    """Whether no record can be created without it."""
    return field.placeholder is not None and field.direction is not Direction.IN


def _name(mapping: FieldMapping, json_name: str) -> str | None:
    return next((name for name, field in mapping.fields.items() if field.json_name == json_name), None)
