"""Selective sync: who takes part by the rules of a connection file."""

from __future__ import annotations

import pytest

from crm_pipeline.sync.coerce import Value
from crm_pipeline.sync.mapping import Values
from crm_pipeline.sync.selection import takes_part

OURS: dict[str, list[Value]] = {"pic": ["Sari"], "deal_status": ["prospect", "deal"]}


def test_without_rules_everybody_takes_part() -> None:
    """Also a record that says nothing, of a contact nobody knows."""
    assert takes_part({}, {})
    assert takes_part({}, {"pic": "Agus"}, {"pic": "Sari"})


@pytest.mark.parametrize(
    "said, answer",
    [
        ({"pic": "Sari", "deal_status": "deal"}, True),
        ({"pic": "Sari", "deal_status": "prospect"}, True),
        ({"pic": "Sari", "deal_status": "lost"}, False),
        ({"pic": "Agus", "deal_status": "deal"}, False),
        ({"pic": "sari", "deal_status": "deal"}, False),
        ({"pic": None, "deal_status": "deal"}, False),
    ],
)
@pytest.mark.parametrize("known", [None, {}, {"pic": "Sari", "deal_status": "deal"}])
def test_every_rule_has_to_hold(said: Values, answer: bool, known: Values | None) -> None:  # noqa: FBT001 - a row of the table
    """Of several values one is enough; what is said now counts, whatever was known; null is no value."""
    assert takes_part(OURS, said, known) is answer


def test_a_field_that_is_not_said_counts_with_what_is_known() -> None:
    """A record that shows only a part is judged by the whole."""
    assert takes_part(OURS, {"deal_status": "deal"}, {"pic": "Sari", "deal_status": "lost"})
    assert not takes_part(OURS, {"deal_status": "deal"}, {"pic": "Agus", "deal_status": "deal"})
    assert not takes_part(OURS, {"deal_status": "deal"}, {"deal_status": "deal"})
    assert not takes_part(OURS, {"pic": "Sari"}, {})


def test_a_contact_nobody_knows_yet_would_be_a_prospect() -> None:
    """It would begin with that deal status, and empty otherwise."""
    assert takes_part(OURS, {"pic": "Sari"})
    assert not takes_part({"deal_status": ["deal"]}, {"pic": "Sari"})
    assert not takes_part(OURS, {})
    assert takes_part({"pic": [None]}, {})
