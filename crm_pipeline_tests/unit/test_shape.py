"""What is noticed of a CRM's schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crm_pipeline.sync.shape import ENOUGH, Shape, judged, noted

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
PATHS = {"nama": ("name", "contact_name"), "capacity": ("details.size",), "notes": ("notes",)}
USUAL: dict[str, Any] = {"name": "A", "details": {"size": 5}}


def _seen(*batches: Iterable[Mapping[str, Any]]) -> Shape:
    state: dict[str, Any] = {}
    for day, batch in enumerate(batches):
        state = noted(state, batch, PATHS, NOON + timedelta(days=day))
    return judged(state, NOON + timedelta(days=len(batches)))


def test_nothing_seen_nothing_wrong() -> None:
    """Before the first record nothing is known."""
    assert _seen([]) == Shape(0)


def test_a_field_that_vanishes_is_named_when_enough_records_lack_it() -> None:
    """A rename in the CRM: the old name is in no record any more."""
    without = {"name": "A", "details": {}}
    assert _seen([USUAL] * 100, [without] * (ENOUGH - 1)) == Shape(2)
    assert _seen([USUAL] * 100, [without] * ENOUGH) == Shape(2, vanished=("capacity",))
    assert _seen([USUAL] * 100, [without] * 50, [without] * 50) == Shape(2, vanished=("capacity",))


def test_a_field_that_comes_back_is_well_again() -> None:
    """One record that holds it is enough."""
    assert _seen([USUAL] * 100, [{"name": "A"}] * 50, [USUAL]) == Shape(2)


def test_a_field_that_most_records_lack_cannot_vanish() -> None:
    """Notes in one record of ten come and go."""
    sometimes = [{**USUAL, "notes": "x"}, *[USUAL] * 9] * 10
    assert _seen(sometimes, [USUAL] * 100) == Shape(3)


def test_null_is_there() -> None:
    """A field that is empty in all records has not vanished, and is of no other kind."""
    empty = {"name": None, "details": {"size": None}}
    assert _seen([USUAL] * 100, [empty] * 100) == Shape(2)


def test_one_of_several_names_is_enough() -> None:
    """The mapping knows both names, so nothing is lost by the change."""
    assert _seen([USUAL] * 100, [{"contact_name": "A", "details": {"size": 1}}] * 50) == Shape(2)


@pytest.mark.parametrize("value", ["5", 5.5, True, [5], {"value": 5}], ids=repr)
def test_another_kind_of_value_is_named_for_a_week(value: object) -> None:
    """A number in place of a number is none; everything else is told, then known."""
    other = {"name": "A", "details": {"size": value}}
    expected = () if value == 5.5 else ("capacity",)
    assert _seen([USUAL] * 100, [other]).changed == expected
    assert _seen([USUAL] * 100, [other], *[[]] * 7).changed == ()


def test_a_mixture_from_the_start_is_the_usual() -> None:
    """What the first records differ in is no change."""
    assert _seen([USUAL, {"name": 7, "details": {"size": "5"}}] * 100).changed == ()


def test_too_few_records_prove_nothing() -> None:
    """The first handful may all look alike by chance."""
    assert _seen([USUAL] * (ENOUGH - 1), [{"name": 5, "details": {}}] * 100) == Shape(2)


def test_no_value_is_remembered() -> None:
    """Only names of our fields, counts, kinds and times: no person is in it."""
    assert "secret name" not in repr(noted({}, [{"name": "secret name"}] * 3, PATHS, NOON))
