"""The push plan: which fields go out, under which names, and which do not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from crm_pipeline.connection import Connection
from crm_pipeline.store.links import Link
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import FieldMapping
from crm_pipeline.sync.noticing import notice
from crm_pipeline.sync.plan import PlannedWrite, plan_write, to_write
from crm_pipeline.sync.reports import Outcome

BUDI = "628123456789@c.us"
RULES = {
    "pic": {"direction": "in"},
    "vip": {"type": "boolean", "names": "is_vip"},
}
MAPPING = FieldMapping(Connection.model_validate({"fields": RULES}))
EMPTY: dict[str, Any] = dict.fromkeys(name for name, field in MAPPING.fields.items() if field.built_in)


def plan(
    agreed: dict[str, Any] | None,
    held: tuple[str, ...] = (),
    known: dict[str, Any] | None = None,
    **values: Any,
) -> PlannedWrite | Outcome:
    """The plan for a contact; ``agreed`` None: it has no record yet."""
    link = None
    if agreed is not None:
        both = {"id": BUDI, "deal_status": "prospect", **agreed}
        link = Link("r1", BUDI, internal_shadow=dict(both), external_shadow=dict(both))
    custom = {"vip": values.pop("vip")} if "vip" in values else {}
    contact = {**EMPTY, "id": BUDI, "deal_status": "prospect", "custom": custom, **values}
    return planned_by(MAPPING, contact, link, held, known)


def planned_by(
    mapping: FieldMapping,
    contact: dict[str, Any],
    link: Link | None,
    held: tuple[str, ...] = (),
    known: dict[str, Any] | None = None,
) -> PlannedWrite | Outcome:
    """The plan a mapping makes for a row."""
    canonical = mapping.canonical(contact)
    noticed = notice(mapping, BUDI, canonical[0], link, datetime.now(UTC)).to_push if link else None
    dirty = to_write(mapping, canonical[0], noticed, held)
    return plan_write(mapping, mapping, BUDI, 3, canonical, link, dirty, known)


def test_a_contact_the_crm_knows_all_about_is_not_written() -> None:
    """Nor is one whose text differs only in what no user means by an edit."""
    assert plan({"nama": "Budi", "notes": None}, nama="Budi") is Outcome.UNCHANGED
    assert plan({"nama": "Budi"}, nama="Budi ") is Outcome.UNCHANGED
    assert plan({"vip": None}) is Outcome.UNCHANGED


def test_a_new_contact_is_written_without_its_empty_fields() -> None:
    """No blanks; 0 and "" are values."""
    planned = plan(None, nama="Budi", notes="", capacity=0, pic="Sari")
    assert isinstance(planned, PlannedWrite)
    assert planned.external_id is None
    assert planned.payload == {
        "phone": BUDI,
        "name": "Budi",
        "notes": "",
        "capacity": 0,
        "status": "prospect",
    }
    assert planned.before == {}


def test_only_the_difference_is_written() -> None:
    """With what the CRM was last seen to hold, so that its own answer can be told from an edit."""
    planned = plan({"nama": "Budi", "notes": "old"}, nama="Budi", notes="new", capacity=5)
    assert isinstance(planned, PlannedWrite)
    assert (planned.external_id, planned.contact_version) == ("r1", 3)
    assert planned.payload == {"notes": "new", "capacity": 5}
    assert planned.sent == {"notes": "new", "capacity": 5}
    assert planned.before == {"notes": "old"}


def test_a_held_field_and_one_that_comes_in_only_stay_here() -> None:
    """The others go on."""
    planned = plan({"nama": "a", "notes": "a", "pic": "a"}, held=("notes",), nama="b", notes="b", pic="b")
    assert isinstance(planned, PlannedWrite)
    assert planned.payload == {"name": "b"}
    assert plan({"notes": "a", "pic": "a"}, held=("notes",), notes="b", pic="b") is Outcome.UNCHANGED


def test_a_field_of_your_own_that_went_from_the_row_is_cleared() -> None:
    """Another program rewrote the column ``custom`` without it."""
    planned = plan({"vip": True})
    assert isinstance(planned, PlannedWrite)
    assert (planned.sent, planned.payload) == ({"vip": None}, {"is_vip": None})


def test_a_value_that_must_be_written_and_fits_no_field_rejects_the_push() -> None:
    """Named by field; one that is as wrong as it was at the last agreement stops nothing."""
    with pytest.raises(RecordRejected) as rejected:
        plan({"capacity": 5}, capacity="many", nama="Budi")
    assert rejected.value.reasons == {"capacity": "is not a whole number"}
    planned = plan({"capacity": "many"}, capacity="many", nama="Budi")
    assert isinstance(planned, PlannedWrite)
    assert planned.payload == {"name": "Budi"}


@pytest.mark.parametrize("direction, payload", [("both", {"name": "-"}), ("out", {"name": "-"}), ("in", {})])
def test_a_create_fills_what_must_not_be_empty(direction: str, payload: dict[str, Any]) -> None:
    """A field with a placeholder goes with every create; a change sends it only when it changed."""
    rule = {"nama": {"placeholder": "-", "direction": direction}}
    made = FieldMapping(Connection.model_validate({"fields": rule}))
    contact = {**EMPTY, "id": BUDI, "deal_status": "prospect"}
    planned = planned_by(made, contact, None)
    assert isinstance(planned, PlannedWrite)
    assert planned.payload == {"phone": BUDI, "status": "prospect", **payload}
    both = {"id": BUDI, "deal_status": "prospect"}
    link = Link("r1", BUDI, internal_shadow=dict(both), external_shadow=dict(both))
    assert planned_by(made, contact, link) is Outcome.UNCHANGED
