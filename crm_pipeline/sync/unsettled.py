"""Pairs compared whole columns at a time: which fields are not plainly settled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from crm_pipeline.contact import FieldType
from crm_pipeline.store.contacts import StoredContact
from crm_pipeline.store.links import Link
from crm_pipeline.sync.coerce import Value
from crm_pipeline.sync.listed import Column, Listed, column
from crm_pipeline.sync.mapping import Values
from crm_pipeline.sync.merge import ABSENT


@dataclass(frozen=True, slots=True)
class Pair:
    """A contact and its record, both alive."""

    link: Link
    contact: StoredContact
    here: Values
    """What the contact holds, canonical."""
    position: int
    """The record's, in the table."""


def unsettled(pairs: Sequence[Pair], listed: Listed, types: Mapping[str, FieldType]) -> list[list[str]]:
    """Fields of each pair that are not plainly settled.

    Settled is what both sides hold alike, and what each side holds as it did at the last
    agreement, be it in two spellings.
    """
    positions = [pair.position for pair in pairs]
    open_cells = {}
    for name, kind in types.items():
        here, odd = _typed([pair.here.get(name) for pair in pairs], kind)
        inner, outer = (
            (pair.link.internal_shadow for pair in pairs),
            (pair.link.external_shadow for pair in pairs),
        )
        agreed_here, known_here = _shadow(inner, name, kind)
        agreed_there, known_there = _shadow(outer, name, kind)
        there, said = listed.cells(name, positions), listed.says(name, positions)
        inside = known_here & _equal(here, agreed_here)
        outside = known_there & _equal(there, agreed_there)
        nothing = ~known_here & here.isna()
        settled = (said & _equal(here, there)) | (inside & outside & said) | (~said & (inside | nothing))
        open_cells[name] = ~settled | odd
    table = pd.DataFrame(open_cells)
    found: list[list[str]] = [[] for _ in pairs]
    for number in table.index[table.any(axis="columns")]:
        found[number] = [name for name in types if table[name].array[number]]
    return found


_TYPES = {
    FieldType.INTEGER: frozenset({int}),
    FieldType.NUMBER: frozenset({int, float}),
    FieldType.BOOLEAN: frozenset({bool}),
}


def _typed(values: Sequence[Value], kind: FieldType) -> tuple[Column, Column]:
    """A column, and which of its values do not fit it: other programs write anything."""
    fits = _TYPES.get(kind, frozenset({str}))
    odd = [value is not None and type(value) not in fits for value in values]
    kept = (None if wrong else value for value, wrong in zip(values, odd, strict=True))
    return column(kept, kind), pd.Series(odd, dtype=bool)


def _shadow(shadows: Iterable[Mapping[str, Value]], name: str, kind: FieldType) -> tuple[Column, Column]:
    """A column of what was agreed, and where anything was."""
    agreed = [shadow.get(name, ABSENT) for shadow in shadows]
    values, odd = _typed([None if value is ABSENT else value for value in agreed], kind)
    return values, pd.Series([value is not ABSENT for value in agreed], dtype=bool) & ~odd


def _equal(left: Column, right: Column) -> Column:
    """Equal, or both empty."""
    return (left == right).fillna(value=False).astype(bool) | (left.isna() & right.isna())
