"""Noticing: what other programs changed in a contact, each edit once, and when."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from crm_pipeline import instants
from crm_pipeline.connection import Connection
from crm_pipeline.store.ledger import Change
from crm_pipeline.store.links import Link
from crm_pipeline.sync.coerce import Value
from crm_pipeline.sync.mapping import FieldMapping
from crm_pipeline.sync.noticing import Noticed, notice

BUDI = "628123456789@c.us"
EARLIER = "2026-01-30T08:00:00.000000Z"
AT = datetime(2026, 1, 31, 9, tzinfo=UTC)
SINCE = instants.to_text(AT)
MAPPING = FieldMapping(Connection.model_validate({"fields": {"instansi": {"direction": "in"}}}))
AGREED: dict[str, Any] = {"nama": "Budi", "notes": "call back", "capacity": 500}


def noticed(values: dict[str, Value], known: dict[str, list[Any]] | None = None) -> Noticed:
    """What is found in a contact that holds what was agreed, but for ``values``."""
    link = Link("r1", BUDI, internal_shadow=dict(AGREED), edits=deepcopy(known or {}))
    return notice(MAPPING, BUDI, {**AGREED, **values}, link, AT)


def told(name: str, old: Value, new: Value) -> Change:
    """The history's line about an edit."""
    return Change(BUDI, name, old, new, AT, "internal", "only internal changed", None)


@pytest.mark.parametrize("values", [{}, {"nama": " Budi\n"}, {"pic": None}])
def test_a_contact_as_it_was_agreed_has_no_edits(values: dict[str, Value]) -> None:
    """Nor one that differs only in what no user means by an edit, or is empty where nothing was agreed."""
    assert noticed(values) == Noticed({}, [], to_push=[])


def test_edits_are_noticed_with_their_time_and_told_to_history_and_crm() -> None:
    """Every field for itself, null and a field nothing was agreed about too."""
    assert noticed({"nama": "Sari", "notes": None, "pic": "Agus"}) == Noticed(
        {"nama": ["Sari", SINCE], "notes": [None, SINCE], "pic": ["Agus", SINCE]},
        [told("nama", "Budi", "Sari"), told("notes", "call back", None), told("pic", None, "Agus")],
        to_push=["nama", "notes", "pic"],
    )


@pytest.mark.parametrize("edit", [{"nama": "Sari"}, {"notes": None}, {"pic": "Agus"}, {"pic": ""}])
def test_one_edit_is_enough_for_a_push(edit: dict[str, Value]) -> None:
    """Of a value, to null, from nothing."""
    assert noticed(edit).to_push


def test_an_edit_that_was_noticed_before_is_no_news() -> None:
    """It keeps the time it was first seen, however often the row is looked at, and is still to be pushed."""
    found = noticed({"nama": "Sari"}, {"nama": ["Sari", EARLIER]})
    assert found == Noticed({"nama": ["Sari", EARLIER]}, [], to_push=["nama"])


def test_a_second_edit_follows_the_first() -> None:
    """History goes on from the value seen last, null too, and the time is that of the newer edit."""
    for first in ("Sari", None):
        found = noticed({"nama": "Agus"}, {"nama": [first, EARLIER]})
        assert found == Noticed({"nama": ["Agus", SINCE]}, [told("nama", first, "Agus")], to_push=["nama"])


def test_an_edit_taken_back_is_forgotten() -> None:
    """The field is again as it was agreed."""
    assert noticed({}, {"nama": ["Sari", EARLIER]}) == Noticed({}, [], to_push=[])


def test_an_edit_that_may_not_go_out_is_noticed_and_not_pushed() -> None:
    """Beside one that may, it keeps nothing back, whichever comes first."""
    alone = noticed({"instansi": "Gedung A"})
    assert (alone.news, alone.to_push) == ([told("instansi", None, "Gedung A")], [])
    assert noticed({"nama": "Sari", "instansi": "Gedung A"}).to_push == ["nama"]
    assert noticed({"instansi": "Gedung A", "notes": "new"}).to_push == ["notes"]
