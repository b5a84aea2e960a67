"""Mapping outward: what is written to the CRM, where in its record, and that it reads back as meant."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline.connection import Connection
from crm_pipeline.contact import FIELDS, FieldType
from crm_pipeline.sync.coerce import MAX_INTEGER, Value
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import FieldMapping, Values

BUDI = "628123456789@c.us"
PLAIN = FieldMapping(Connection())


def mapping(**sections: Any) -> FieldMapping:
    """The mapping of a connection file."""
    return FieldMapping(Connection.model_validate(sections))


def written(by: FieldMapping, contact: Values, known: Any = None) -> dict[str, Any]:
    """What is sent so that these values arrive."""
    return by.to_external(contact, list(contact), {}, known)


def test_only_what_changed_is_written_under_the_first_name() -> None:
    """A new record gets the built-in names; null clears; a field nobody changed is not mentioned."""
    contact: Values = {"id": BUDI, "nama": "Budi", "ticket_price": 0, "notes": None, "pic": "Sari"}
    assert PLAIN.to_external(contact, ["nama", "ticket_price", "notes", "vip"], {}, None) == {
        "name": "Budi",
        "ticket_price": 0,
        "notes": None,
    }


def test_the_name_the_record_already_uses_is_written() -> None:
    """No second name appears beside it, even where it holds null."""
    known = {"price": 1, "contact_name": None, "whatsapp_id": BUDI, "deal_stage": "deal"}
    contact: Values = {"id": BUDI, "nama": "Budi", "ticket_price": 5, "deal_status": "lost", "notes": "new"}
    assert written(PLAIN, contact, known) == {
        "whatsapp_id": BUDI,
        "contact_name": "Budi",
        "price": 5,
        "deal_stage": "lost",
        "notes": "new",
    }


def test_a_name_to_write_can_be_given() -> None:
    """``write`` comes before any name that is read."""
    own = mapping(fields={"nama": {"names": ["full", "name"], "write": "names.display"}})
    assert written(own, {"nama": "Budi"}, {"name": "B."}) == {"names": {"display": "Budi"}}


def test_instants_go_out_without_a_fraction_that_says_nothing() -> None:
    """Many CRMs refuse six digits of zeros."""
    contact: Values = {
        "meeting_date": "2026-01-31T09:00:00.000000Z",
        "event_day_date": "2026-01-31T09:00:00.500000Z",
        "notes": "2026-01-31T09:00:00.000000Z",
    }
    assert written(PLAIN, contact) == {
        "meeting_date": "2026-01-31T09:00:00Z",
        "event_date": "2026-01-31T09:00:00.500000Z",
        "notes": "2026-01-31T09:00:00.000000Z",
    }


NESTED = {
    "nama": {"names": "person.name"},
    "notes": {"names": "person.about.text"},
    "cp_first": {"names": ["phones.0.value"]},
    "cp_second": {"names": ["phones.1.value"]},
    "pic": {"names": "tags.1"},
    "event": {"names": "custom.event"},
}


def test_nested_values_are_written_in_one_object() -> None:
    """Objects and lists are made on the way, and shared."""
    contact: Values = {"nama": "Budi", "notes": "n", "cp_first": "1", "cp_second": "2", "pic": "Sari"}
    assert written(mapping(fields=NESTED), contact) == {
        "person": {"name": "Budi", "about": {"text": "n"}},
        "phones": [{"value": "1"}, {"value": "2"}],
        "tags": [{}, "Sari"],
    }


def test_a_list_goes_out_with_all_it_held() -> None:
    """CRMs replace a list as a whole: what is not mapped in it must not be lost."""
    known = {
        "phones": [{"value": "1", "kind": "home"}, {"value": "2", "kind": "work"}, {"value": "3"}],
        "tags": ["vip", "old", "x"],
        "custom.event": "old",
    }
    before = copy.deepcopy(known)
    contact: Values = {"cp_second": "0812", "pic": "Sari", "event": "Expo"}
    assert written(mapping(fields=NESTED), contact, known) == {
        "phones": [{"value": "1", "kind": "home"}, {"value": "0812", "kind": "work"}, {"value": "3"}],
        "tags": ["vip", "Sari", "x"],
        "custom.event": "Expo",  # one key, as the record has it
    }
    assert known == before


def test_a_position_in_an_object_is_a_key() -> None:
    """Where the record has an object with keys like numbers, it stays an object."""
    known = {"phones": {"0": {"value": "1"}}}
    assert written(mapping(fields=NESTED), {"cp_first": "2"}, known) == {"phones": {"0": {"value": "2"}}}


@pytest.mark.parametrize(
    "one, other, known",
    [
        ("a", "a.b", None),
        ("a.b", "a", None),
        ("a.0.x", "a.x", None),
        ("b", "a.0.x", {"a": ["text"]}),
        ("b", "a.0", {"a": [{"x": 1}]}),
    ],
)
def test_a_path_through_another_value_rejects_the_write(one: str, other: str, known: Any) -> None:
    """Two rules that fight over one place, or a record of another shape: nothing is overwritten."""
    own = mapping(fields={"nama": {"names": one}, "notes": {"names": other, "write": other}})
    with pytest.raises(RecordRejected) as rejected:
        written(own, {"nama": "Budi", "notes": "n"}, known)
    assert rejected.value.reasons == {"notes": f"{other} runs through another value"}


# There and back.


def values_of(kind: FieldType, choices: tuple[str, ...]) -> st.SearchStrategy[Value]:
    """Canonical values of a type."""
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
    instants = st.from_regex(
        r"20[0-9]{2}-0[1-9]-[12][0-8]T[01][0-9](:[0-5][0-9]){2}\.[0-9]{6}Z", fullmatch=True
    )
    strategies: dict[FieldType, st.SearchStrategy[Value]] = {
        FieldType.TEXT: text,
        FieldType.INTEGER: st.integers(0, MAX_INTEGER),
        FieldType.CHOICE: st.sampled_from(choices or ("",)),
        FieldType.INSTANT: instants,
        FieldType.WHATSAPP_ID: st.from_regex(r"628[1-9][0-9]{7,9}@c\.us", fullmatch=True),
    }
    return strategies[kind]


CONTACTS = st.fixed_dictionaries(
    {},
    optional={
        field.name: values_of(field.type, field.choices) | (st.none() if field.nullable else st.nothing())
        for field in FIELDS
    },
)
NAMES = sorted({name for field in FIELDS for name in field.external_names})
RECORDS = st.dictionaries(st.sampled_from([*NAMES, "unmapped", "extra"]), st.text(max_size=5), max_size=8)
MAPPINGS = st.sampled_from([PLAIN, mapping(fields=NESTED)])


@given(contact=CONTACTS, by=MAPPINGS)
def test_what_is_put_is_what_is_got(contact: Values, by: FieldMapping) -> None:
    """get(put(v)) = v: a new record read back is the contact that was written."""
    assert by.to_contact(written(by, contact)) == contact


@given(contact=CONTACTS, known=RECORDS)
def test_what_is_put_into_a_record_is_what_is_got_from_it(contact: Values, known: dict[str, Any]) -> None:
    """And a record that was changed reads as the change; keys no rule names stay out of it."""
    payload = written(PLAIN, contact, known)
    assert len(payload) == len(contact)
    named = {name for field in FIELDS if field.name in contact for name in field.external_names}
    assert payload.keys() <= named
    changed = {key: value for key, value in {**known, **payload}.items() if key in named}
    assert PLAIN.to_contact(changed) == contact
    for field in FIELDS:
        used = [name for name in field.external_names if name in known]
        if field.name in contact and used:
            assert used[0] in payload
