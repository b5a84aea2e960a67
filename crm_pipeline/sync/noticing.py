"""Noticing: what other programs changed in a contact since the CRM was last told. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from crm_pipeline import instants
from crm_pipeline.store.ledger import Change
from crm_pipeline.store.links import Link
from crm_pipeline.sync.mapping import FieldMapping, Values
from crm_pipeline.sync.merge import Verdict, changed, to_push


class Noticed(NamedTuple):
    """What was found."""

    edits: dict[str, list[object]]
    """Every field that differs from the last agreement: its value, and when it was changed."""
    news: list[Change]
    """Those that were not known before, for the history."""
    to_push: bool
    """Whether the CRM has to hear of any."""


def notice(mapping: FieldMapping, contact_id: str, values: Values, link: Link, at: datetime) -> Noticed:
    """Compare a contact with what it held at the last agreement.

    ``at`` is when the row was last changed: an upper bound for each of its fields.
    """
    edits: dict[str, list[object]] = {}
    news: list[Change] = []
    pending = False
    shadows = link.internal_shadow
    # Null where nothing was agreed: emptiness is no edit. Most fields are equal, which is cheap to see.
    for name in [name for name in mapping.fields if values.get(name) != shadows.get(name)]:
        value, shadow = values.get(name), shadows.get(name)
        if not changed(value, shadow):
            continue
        pending = pending or to_push(value, shadow, mapping.fields[name].direction)
        known = link.edits.get(name)
        if known is None or known[0] != value:
            old = known[0] if known else shadow
            news.append(Change(contact_id, name, old, value, at, "internal", Verdict.INTERNAL_CHANGE.value))
            known = [value, instants.to_text(at)]
        edits[name] = known
    return Noticed(edits, news, to_push=pending)
