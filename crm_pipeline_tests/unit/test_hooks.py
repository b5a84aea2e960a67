"""Hooks: mapping methods somebody else wrote are honoured, and held to the same rules."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline.connection import Connection
from crm_pipeline.contact import BUILT_IN
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.hooks import HookedMapping
from crm_pipeline.sync.mapping import FieldMapping, Values

BUDI = "628123456789@c.us"
OWN = {"vip": {"type": "boolean", "names": "is_vip"}}
PLAIN = FieldMapping(Connection.model_validate({"fields": OWN}))

Inward = Callable[[Any], Any]
Outward = Callable[[dict[str, Any]], Any]


def names(contact: dict[str, Any]) -> dict[str, Any]:
    """A hook as users write it: it takes every field for given."""
    return {
        "source": "bot",
        "title": f"{contact['nama']} ({contact['instansi']})" if contact["nama"] else None,
        "numbers": {"price": contact["ticket_price"], "capacity": contact["capacity"]},
    }


def hooked(inward: Inward = PLAIN.to_contact, outward: Outward = names) -> HookedMapping:
    """A translator made of these."""
    return HookedMapping(PLAIN, inward, outward)


def contact(**values: Any) -> Values:
    """A whole contact."""
    return {**dict.fromkeys(PLAIN.fields), "id": BUDI, **values}


def reasons(inward: Inward) -> dict[str, str]:
    """Why what a hook does rejects a record."""
    with pytest.raises(RecordRejected) as rejected:
        hooked(inward).to_contact({"phone": BUDI})
    return rejected.value.reasons


def test_what_a_hook_returns_becomes_canonical() -> None:
    """Column names or JSON names, loose spellings, own fields: checked like any record."""
    made = {
        "id": "0812-3456-789",
        "ticketPrice": "150000",
        "deal_status": "Closed",
        "vip": "yes",
        "notes": "",
    }
    found = hooked(lambda _record: made).to_contact({})
    assert found == {"id": BUDI, "ticket_price": 150000, "deal_status": "deal", "vip": True, "notes": ""}
    assert hooked(lambda _record: UserDict(nama=None)).to_contact({}) == {"nama": None}


def test_a_hook_that_returns_none_leaves_the_record_out() -> None:
    """That is its way to say: not this one."""
    assert hooked(lambda _record: None).to_contact({"phone": BUDI}) is None
    assert hooked(outward=lambda _contact: None).to_external(contact(nama="B"), ["nama"], {}, None) == {}
    before = contact(nama="A")
    assert hooked(outward=lambda _contact: None).to_external(contact(nama="B"), ["nama"], before, None) == {}


def test_a_hook_cannot_empty_what_cannot_be_empty() -> None:
    """A null deal status or id says nothing."""
    assert hooked(lambda _record: {"id": None, "dealStatus": None, "nama": "B"}).to_contact({}) == {
        "nama": "B"
    }


def test_every_wrong_value_of_a_hook_is_named() -> None:
    """By field, with the reason; names that are no field are mistakes too."""
    made = {"nama": ["x"], "ticket_price": -1, "dealStatus": "won", "unheard_of": 1, 5: "x", "capacity": 3}
    assert reasons(lambda _record: made) == {
        "nama": "is a list, not text",
        "ticketPrice": "is negative",
        "dealStatus": "is not one of prospect, negotiating, deal, lost or a known synonym",
        "unheard_of": "is not a field of a contact",
        "5": "is not a field of a contact",
    }


@pytest.mark.parametrize("made", ["text", 5, [], [("nama", "x")], {"nama"}, True, 0, False])
def test_a_hook_that_returns_no_mapping_rejects_the_record(made: Any) -> None:
    """Inward and outward, and the batch goes on."""
    told = {"record": "the mapping hook returned no mapping"}
    assert reasons(lambda _record: made) == told
    with pytest.raises(RecordRejected) as rejected:
        hooked(outward=lambda _contact: made).to_external(contact(nama="B"), ["nama"], contact(), None)
    assert rejected.value.reasons == told


@pytest.mark.parametrize(
    "fault",
    [KeyError("Budi"), ValueError("628123456789"), RecursionError(), UnicodeError("Budi"), StopIteration()],
)
def test_a_fault_in_a_hook_rejects_the_record_without_quoting_it(fault: Exception) -> None:
    """Only the kind of error is told: its text may hold personal data."""

    def broken(_given: Any) -> Any:
        raise fault

    told = {"record": f"the mapping hook failed ({type(fault).__name__})"}
    assert reasons(broken) == told
    with pytest.raises(RecordRejected) as rejected:
        hooked(outward=broken).to_external(contact(nama="B"), ["nama"], {}, None)
    assert rejected.value.reasons == told


def test_a_hook_may_reject_with_reasons_of_its_own() -> None:
    """They are kept as they are."""

    def picky(_record: Any) -> Any:
        raise RecordRejected({"nama": "is on the list of competitors"})

    assert reasons(picky) == {"nama": "is on the list of competitors"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_stop_goes_through_a_hook(error: type[BaseException]) -> None:
    """Ctrl-C is no fault of the record."""

    def stopped(_record: Any) -> Any:
        raise error

    with pytest.raises(error):
        hooked(stopped).to_contact({})


def test_a_new_record_gets_what_the_hook_makes_of_the_contact() -> None:
    """Constants included; nulls say nothing about a record that does not exist yet."""
    new = contact(nama="Budi", instansi="PT", capacity=0)
    assert hooked().to_external(new, ["nama", "instansi", "capacity"], {}, None) == {
        "source": "bot",
        "title": "Budi (PT)",
        "numbers": {"capacity": 0},
    }


def test_an_update_is_what_the_hook_now_makes_differently() -> None:
    """Object by object: what it made then as now is not sent again."""
    before: Values = {"nama": "Budi", "instansi": "PT", "ticket_price": 5, "capacity": 10}
    now = contact(**{**before, "capacity": 20})
    assert hooked().to_external(now, ["capacity"], before, None) == {"numbers": {"capacity": 20}}
    assert hooked().to_external(contact(**{**before, "nama": None}), ["nama"], before, None) == {
        "title": None
    }


def test_a_hook_sees_every_field_even_where_nothing_was_agreed_yet() -> None:
    """The last agreement may know of some fields only; the hook need not care."""
    assert hooked().to_external(contact(nama="Budi", instansi="PT"), ["nama"], {"instansi": "PT"}, None) == {
        "title": "Budi (PT)"
    }


def test_a_field_that_may_not_go_out_does_not_go_out_through_a_hook() -> None:
    """One that waits for a person, or comes in only, looks to the hook as it was agreed."""
    before: Values = {"nama": "Budi", "instansi": "PT", "ticket_price": 5, "capacity": 10}
    now = contact(nama="Sari", instansi="Other", ticket_price=6, capacity=20)
    assert hooked().to_external(now, ["ticket_price"], before, None) == {"numbers": {"price": 6}}


def test_what_a_hook_no_longer_makes_is_cleared() -> None:
    """A hook that leaves empty fields out clears them, and does not keep the CRM at the old value."""

    def sparse(values: dict[str, Any]) -> dict[str, Any]:
        return {"info": {name: values[name] for name in ("nama", "notes") if values[name]}}

    before: Values = {"nama": "Budi", "notes": "old"}
    now = contact(nama="Budi", notes=None)
    assert hooked(outward=sparse).to_external(now, ["notes"], before, None) == {"info": {"notes": None}}


def test_a_null_that_a_hook_no_longer_makes_clears_nothing() -> None:
    """It was empty then, and is now."""

    def formal(values: dict[str, Any]) -> dict[str, Any]:
        return {"name": values["nama"]} if values["notes"] is None else {"text": values["notes"]}

    now = contact(notes="new")
    assert hooked(outward=formal).to_external(now, ["notes"], {"id": BUDI}, None) == {"text": "new"}


def test_a_hook_may_make_another_kind_of_value_than_before() -> None:
    """An object where a text was goes out whole, and the other way round."""

    def growing(values: dict[str, Any]) -> dict[str, Any]:
        return {"info": {"name": values["nama"], "since": 1} if values["notes"] else values["nama"]}

    small, grown = contact(nama="Budi"), contact(nama="Budi", notes="x")
    hook = hooked(outward=growing)
    assert hook.to_external(grown, ["notes"], small, None) == {"info": {"name": "Budi", "since": 1}}
    assert hook.to_external(small, ["notes"], grown, None) == {"info": "Budi"}


def test_a_hook_cannot_change_the_contact_it_is_shown() -> None:
    """It gets a copy: what it does to it stays with it."""

    def greedy(values: dict[str, Any]) -> dict[str, Any]:
        return {"name": values.pop("nama")}

    now, before = contact(nama="Sari"), contact(nama="Budi")
    assert hooked(outward=greedy).to_external(now, ["nama"], before, None) == {"name": "Sari"}
    assert (now["nama"], before["nama"]) == ("Sari", "Budi")


def test_a_hook_that_calls_the_built_in_mapping_writes_as_it_does() -> None:
    """An override that adds one field to ``super()`` sends that and what changed."""

    def more(values: dict[str, Any]) -> Mapping[str, Any]:
        return {**PLAIN.to_external(values, list(values), {}, None), "source": "bot"}

    before = contact(nama="Budi", notes="old", deal_status="prospect")
    now = contact(nama="Budi", notes="new", deal_status="prospect")
    assert hooked(outward=more).to_external(now, ["notes"], before, None) == {"notes": "new"}
    assert hooked(outward=more).to_external(now, ["id", "nama", "notes", "deal_status"], {}, None) == {
        "phone": BUDI,
        "name": "Budi",
        "notes": "new",
        "status": "prospect",
        "source": "bot",
    }


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.sampled_from([*BUILT_IN]), inner)
    ),
    max_leaves=5,
)


@given(made=ANYTHING)
def test_whatever_a_hook_returns_is_values_or_a_reject(made: Any) -> None:
    """No hook can stop a batch."""
    try:
        found = hooked(lambda _record: made).to_contact({})
    except RecordRejected:
        return
    assert found is None or found.keys() <= PLAIN.fields.keys()
