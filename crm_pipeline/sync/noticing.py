"""Noticing: what other programs changed in a contact since the CRM was last told. Pure."""

from __future__ import annotations

from datetime import datetime
from itertools import compress
from operator import ne
from typing import NamedTuple

from crm_pipeline import instants
from crm_pipeline.connection import Direction
from crm_pipeline.store.ledger import Change
from crm_pipeline.store.links import Link
from crm_pipeline.sync.mapping import FieldMapping, Values
from crm_pipeline.sync.merge import Verdict, changed


class Noticed(NamedTuple):
    """What was found."""

    edits: dict[str, list[object]]
    """Every field that differs from the last agreement: its value, and when it was changed."""
    news: list[Change]
    """Those that were not known before, for the history."""
    to_push: list[str]
    """Those the CRM has to hear of."""


def notice(mapping: FieldMapping, contact_id: str, values: Values, link: Link, at: datetime) -> Noticed:
    """Compare a contact with what it held at the last agreement.

    ``at`` is when the row was last changed: an upper bound for each of its fields.
    """
    edits: dict[str, list[object]] = {}
    news: list[Change] = []
    pending: list[str] = []
    shadows = link.internal_shadow
    # Null where nothing was agreed: emptiness is no edit. Most fields are equal, which is cheap to see.
    names = mapping.fields
    for name in compress(names, map(ne, map(values.get, names), map(shadows.get, names))):
        value, shadow = values.get(name), shadows.get(name)
        if not changed(value, shadow):
            continue
        if mapping.fields[name].direction is not Direction.IN:
            pending.append(name)
        known = link.edits.get(name)
        if known is None or known[0] != value:
            old = known[0] if known else shadow
            news.append(Change(contact_id, name, old, value, at, "internal", Verdict.INTERNAL_CHANGE.value))
            known = [value, instants.to_text(at)]
        edits[name] = known
    return Noticed(edits, news, pending)
