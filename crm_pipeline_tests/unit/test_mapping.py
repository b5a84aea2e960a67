"""Mapping inward: from a CRM's record to a contact, by the built-in names or a connection's own."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from crm_pipeline.connection import Connection, Direction, Policy
from crm_pipeline.contact import DEAL_STATUSES, FIELDS, TASK_STATUSES, FieldType
from crm_pipeline.sync.coerce import Value
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import FieldMapping

BUDI = "628123456789@c.us"
PLAIN = FieldMapping(Connection())


def mapping(**sections: Any) -> FieldMapping:
    """The mapping of a connection file."""
    return FieldMapping(Connection.model_validate(sections))


def reasons(record: Any, by: FieldMapping = PLAIN) -> dict[str, str]:
    """Why a record is rejected."""
    with pytest.raises(RecordRejected) as rejected:
        by.to_contact(record)
    return rejected.value.reasons


def test_the_guides_record_becomes_a_contact() -> None:
    """Every built-in name lands in its field, in canonical form."""
    assert PLAIN.to_contact(
        {
            "secret": "not a field",
            "phone": "0812-3456-789",
            "name": "Budi",
            "company": "PT Panggung",
            "event_name": "Tech Conference",
            "ticket_price": "150000",
            "capacity": 500,
            "status": "Closed",
            "notes": "",
            "phone_1": "0811 1",
            "phone_2": 8112,
            "instagram": "@budi",
            "sales_rep": "Sari",
            "task_status": "follow up",
            "meeting_date": "2026-02-15T10:00:00+07:00",
            "sale_date": "2026-03-01",
            "event_date": 1781946000,
        }
    ) == {
        "id": BUDI,
        "nama": "Budi",
        "instansi": "PT Panggung",
        "event": "Tech Conference",
        "ticket_price": 150000,
        "capacity": 500,
        "deal_status": "deal",
        "notes": "",
        "cp_first": "0811 1",
        "cp_second": "8112",
        "ig_link": "@budi",
        "pic": "Sari",
        "status": "Follow Up",
        "meeting_date": "2026-02-15T03:00:00.000000Z",
        "ticket_sale_date": "2026-03-01T00:00:00.000000Z",
        "event_day_date": "2026-06-20T09:00:00.000000Z",
    }


def test_absent_null_and_a_value_are_three_things() -> None:
    """A missing key says nothing, null clears, and 0 and "" are values."""
    assert PLAIN.to_contact({"name": None, "notes": "", "ticket_price": 0, "capacity": None}) == {
        "nama": None,
        "notes": "",
        "ticket_price": 0,
        "capacity": None,
    }


def test_an_update_without_a_deal_status_says_nothing_about_it() -> None:
    """Neither absence nor null demotes a deal: the field cannot be empty, so null clears nothing."""
    for record in ({}, {"status": None}, {"status": ""}, {"deal_stage": " "}):
        assert PLAIN.to_contact(record) == {}
    assert PLAIN.to_contact({"task_status": None}) == {"status": None}


@pytest.mark.parametrize(
    "field",
    [each for each in FIELDS if len(each.external_names) > 1 and each.name != "id"],
    ids=lambda f: f.name,
)
def test_the_first_name_that_is_present_wins(field: Any) -> None:
    """Present means the key is there, whatever it holds."""
    first, second = field.external_names
    values = {FieldType.TEXT: ("a", "b"), FieldType.INTEGER: (1, 2), FieldType.CHOICE: ("deal", "lost")}
    one, other = values[field.type]
    assert PLAIN.to_contact({second: other, first: one}) == {field.name: one}
    assert PLAIN.to_contact({second: other}) == {field.name: other}
    if field.nullable:
        assert PLAIN.to_contact({first: None, second: other}) == {field.name: None}


@pytest.mark.parametrize(
    "record, known_as",
    [
        ({"phone": "08123456789", "whatsapp_id": "6591234567@c.us"}, BUDI),
        ({"phone": None, "whatsapp_id": BUDI}, BUDI),
        ({"phone": "", "whatsapp_id": BUDI}, BUDI),
        ({"phone": "ask Sari", "whatsapp_id": BUDI}, BUDI),
        ({"phone": "120363041@g.us", "whatsapp_id": BUDI}, BUDI),
        ({"phone": None, "whatsapp_id": ""}, None),
        ({"id": "500123", "name": "Budi"}, None),
    ],
)
def test_the_first_usable_id_counts(record: dict[str, Any], known_as: str | None) -> None:
    """The CRM's own record id is never taken for a WhatsApp id, and none is invented."""
    assert PLAIN.to_contact(record).get("id") == known_as


def test_every_wrong_field_is_named_with_its_reason() -> None:
    """One look tells all that is wrong: by field, the external name and why; never the value."""
    assert reasons(
        {
            "phone": "ask Sari",
            "whatsapp_id": "1@g.us",
            "price": "1.5",
            "capacity": -1,
            "status": "won",
            "name": ["Budi"],
            "notes": "fine",
            "event_date": "soon",
        }
    ) == {
        "id": "whatsapp_id is a group, not a contact",
        "nama": "name is a list, not text",
        "ticketPrice": "price is not a whole number",
        "capacity": "capacity is negative",
        "dealStatus": "status is not one of prospect, negotiating, deal, lost or a known synonym",
        "eventDayDate": "event_date is not a date and time",
    }


@pytest.mark.parametrize("record", [None, [], "text", 5, [{"phone": BUDI}]])
def test_a_record_is_an_object(record: Any) -> None:
    """Anything else is rejected as a whole."""
    assert reasons(record) == {"record": "is not an object"}


def test_own_names_replace_the_built_in_ones() -> None:
    """A connection's names are the only ones that count; fields without any keep theirs."""
    own = mapping(fields={"nama": {"names": ["properties.firstname", "full"]}, "pic": {"names": "owner"}})
    record = {"name": "no", "full": "Budi", "owner": "Sari", "sales_rep": "no", "company": "PT"}
    assert own.to_contact(record) == {"nama": "Budi", "pic": "Sari", "instansi": "PT"}
    assert own.to_contact({**record, "properties": {"firstname": "B."}})["nama"] == "B."


@pytest.mark.parametrize(
    "document, path, value",
    [
        ({"a": {"b": {"c": "x"}}}, "a.b.c", "x"),
        ({"a.b.c": "x", "a": {"b": {"c": "y"}}}, "a.b.c", "x"),  # a key that itself holds the dots
        ({"a": [{"b": "x"}, {"b": "y"}]}, "a.1.b", "y"),
        ({"a": {"1": {"b": "x"}}}, "a.1.b", "x"),
        ({"a": ["x"]}, "a.0", "x"),
        ({"a": {"b": None}}, "a.b", None),
    ],
)
def test_a_dotted_path_leads_into_objects_and_lists(document: Any, path: str, value: Value) -> None:
    """Objects by key, lists by position."""
    assert mapping(fields={"notes": {"names": path}}).to_contact(document) == {"notes": value}


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"a": None},
        {"a": []},
        {"a": "text"},
        {"a": [{}]},
        {"a": {"b": 1}},
        {"a": [1, 2]},
        {"a": {"0": None}},
    ],
)
@pytest.mark.parametrize(
    "path", ["a.0.b", "a.-1.b", "a.1_0.b", "a.\u00b2.b", "a.\uff10.b", "a.99999999999999999999.b"]
)
def test_a_path_that_leads_nowhere_says_nothing(document: Any, path: str) -> None:
    """Absent, not null: what is not there clears nothing, and no odd index is one."""
    assert mapping(fields={"notes": {"names": path}}).to_contact(document) == {}


def test_own_fields_are_read_and_checked_like_the_others() -> None:
    """Type, choices and synonyms of a field of your own; the reasons name it."""
    own = mapping(
        timezone="Asia/Jakarta",
        fields={
            "vip": {"type": "boolean", "names": "is_vip"},
            "size": {"type": "choice", "names": "size", "choices": ["S", "L"], "synonyms": {"Big": "L"}},
            "score": {"type": "number", "names": "score"},
            "since": {"type": "instant", "names": "since"},
        },
    )
    record = {"is_vip": "yes", "size": "BIG", "score": "1.5", "since": "2026-01-31T09:00:00"}
    assert own.to_contact(record) == {
        "vip": True,
        "size": "L",
        "score": 1.5,
        "since": "2026-01-31T02:00:00.000000Z",
    }
    assert reasons({"is_vip": 2, "size": "M"}, own).keys() == {"vip", "size"}


def test_a_connection_adds_synonyms_and_replaces_choices() -> None:
    """Own synonyms win over built-in ones; built-in ones go where their choice is gone."""
    own = mapping(fields={"deal_status": {"synonyms": {"Won": "deal", "closed": "lost"}}})
    assert own.to_contact({"status": "WON"}) == {"deal_status": "deal"}
    assert own.to_contact({"status": "Closed"}) == {"deal_status": "lost"}
    assert own.to_contact({"status": "negotiation"}) == {"deal_status": "negotiating"}
    other = mapping(fields={"deal_status": {"choices": ["hot", "deal"]}})
    assert other.to_contact({"status": "closed"}) == {"deal_status": "deal"}
    assert reasons({"status": "negotiation"}, other).keys() == {"dealStatus"}


@pytest.mark.parametrize(
    "rule, named",
    [
        ({"deal_status": {"synonyms": {"won": "victory"}}}, "fields.deal_status.synonyms: 'victory'"),
        ({"size": {"type": "choice", "names": "s", "choices": ["S"], "synonyms": {"Big": "L"}}}, "'L'"),
        ({"notes": {"synonyms": {"a": "b"}}}, "fields.notes.synonyms"),
        ({"ticket_price": {"type": "text"}}, "fields.ticket_price: its 'type' is integer"),
        ({"size": {"type": "choice", "names": "s"}}, "fields.size: a choice needs 'choices'"),
        ({"size": {"type": "text"}}, "fields.size: a field of your own needs"),
    ],
)
def test_a_rule_that_would_let_an_unknown_value_in_is_a_mistake(rule: dict[str, Any], named: str) -> None:
    """A synonym means one of the choices, and a built-in field keeps its type."""
    with pytest.raises(ValidationError, match=named):
        mapping(fields=rule)


def test_policy_and_direction_are_the_fields_own_or_the_connections() -> None:
    """Where a field says nothing, the connection does."""
    own = mapping(
        merge={"policy": "manual"}, fields={"pic": {"direction": "in"}, "notes": {"policy": "internal"}}
    )
    assert (own.fields["pic"].direction, own.fields["pic"].policy) == (Direction.IN, Policy.MANUAL)
    assert (own.fields["notes"].direction, own.fields["notes"].policy) == (Direction.BOTH, Policy.INTERNAL)


# A contact as other programs store it.


def test_a_stored_contact_is_read_as_canonical_values() -> None:
    """Odd spellings of other programs are read; what cannot be is named and kept as it is."""
    own = mapping(timezone="Asia/Jakarta", fields={"vip": {"type": "boolean", "names": "is_vip"}})
    values, wrong = own.canonical(
        {
            "id": "+62 812-3456-789",
            "nama": None,
            "ticket_price": -5,
            "capacity": "750",
            "deal_status": "Negotiation",
            "status": "someday",
            "meeting_date": "2026-01-31 09:00:00",
            "created_at": "2026-01-01",
        }
    )
    assert values["id"] == BUDI
    assert (values["capacity"], values["deal_status"]) == (750, "negotiating")
    assert (
        values["meeting_date"] == "2026-01-31T09:00:00.000000Z"
    )  # our column is UTC, whatever the CRM's zone
    assert (values["ticket_price"], values["status"]) == ("-5", "someday")
    assert wrong.keys() == {"ticketPrice", "status"}
    assert values["vip"] is None
    assert values.keys() == own.fields.keys()


def test_choices_are_those_the_bot_and_the_dashboard_know() -> None:
    """The words of the two status fields."""
    assert DEAL_STATUSES == ("prospect", "negotiating", "deal", "lost")
    assert TASK_STATUSES == ("To Do", "Follow Up", "Next Year")
