"""Fields kept in several places, CRMs with a word for nothing, and times as the CRM writes them."""

from __future__ import annotations

from typing import Any

import pytest

from crm_pipeline.connection import Connection
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import FieldMapping, Values

NAME = {"nama": {"parts": ["name.first", "name.last"]}}


def mapping(**sections: Any) -> FieldMapping:
    """A mapping of some sections."""
    return FieldMapping(Connection.model_validate({"fields": NAME, **sections}))


@pytest.mark.parametrize(
    "record,expected",
    [
        ({}, {}),
        ({"name": {}}, {}),
        ({"name": {"first": "Contoh", "last": "Satu Dua"}}, {"nama": "Contoh Satu Dua"}),
        ({"name": {"first": None, "last": "Satu"}}, {"nama": "Satu"}),
        ({"name": {"last": " Satu "}}, {"nama": "Satu"}),
        ({"name": {"first": None, "last": None}}, {"nama": None}),
        ({"name": {"first": "", "last": ""}}, {"nama": None}),
    ],
)
def test_parts_are_joined(record: dict[str, Any], expected: dict[str, Any]) -> None:
    """Absent only where all are absent; null only where all are empty."""
    assert mapping().to_contact(record) == expected


@pytest.mark.parametrize(
    "value,first,last",
    [
        ("Contoh Satu Dua", "Contoh Satu", "Dua"),
        ("Contoh", None, "Contoh"),
        ("  Contoh   Satu ", "Contoh", "Satu"),
        (None, None, None),
    ],
)
def test_parts_are_written_apart(value: str | None, first: str | None, last: str | None) -> None:
    """The last word goes last; the only one, too: vendors want a last name."""
    written = mapping().to_external({"nama": value}, ["nama"], {}, None)
    assert written == {"name": {"first": first, "last": last}}


def test_what_is_written_is_read_again() -> None:
    """A name that went out and comes back is no change."""
    made = mapping()
    for value in ("Contoh", "Contoh Satu", "Contoh Satu Dua Tiga", None):
        assert made.to_contact(made.to_external({"nama": value}, ["nama"], {}, None)) == {"nama": value}


def test_a_word_for_nothing_goes_both_ways() -> None:
    """An empty text that means null is read as null, and clears."""
    made = mapping(records={"empty": ""})
    assert made.to_contact({"notes": "", "ticket_price": ""}) == {"notes": None, "ticket_price": None}
    written = made.to_external({"notes": None, "nama": "Satu"}, ["notes", "nama"], {}, None)
    assert written == {"notes": "", "name": {"first": "", "last": "Satu"}}


def test_times_are_written_in_the_crms_form_and_zone() -> None:
    """A pattern in a zone; without one it is ISO in UTC."""
    contact: Values = {"meeting_date": "2026-03-01T02:00:00.000000Z"}
    names = ["meeting_date"]
    assert mapping().to_external(contact, names, {}, None) == {"meeting_date": "2026-03-01T02:00:00Z"}
    local = mapping(writing={"time_format": "%d.%m.%Y %H:%M", "time_zone": "Asia/Jakarta"})
    assert local.to_external(contact, names, {}, None) == {"meeting_date": "01.03.2026 09:00"}


def test_a_placeholder_stands_for_nothing_both_ways() -> None:
    """A CRM that wants a last name gets one, and no contact is ever called that."""
    parts = mapping(fields={"nama": {**NAME["nama"], "placeholder": "-"}})
    plain = mapping(fields={"notes": {"names": ["about"], "placeholder": "(none)"}})
    for value in (None, ""):
        written = parts.to_external({"nama": value}, ["nama"], {}, None)
        assert written == {"name": {"first": None, "last": "-"}}
        assert parts.to_contact(written) == {"nama": None}
        assert plain.to_external({"notes": value}, ["notes"], {}, None) == {"about": "(none)"}
    assert parts.to_contact({"name": {"first": "Contoh", "last": "-"}}) == {"nama": "Contoh"}
    assert plain.to_contact({"about": "(none)"}) == {"notes": None}
    assert parts.canonical({"nama": "-"})[0]["nama"] is None
    assert parts.to_external({"nama": "Contoh"}, ["nama"], {}, None) == {
        "name": {"first": None, "last": "Contoh"}
    }


def test_only_text_has_a_placeholder() -> None:
    """A number in place of none would be taken for one."""
    with pytest.raises(ValueError, match=r"fields\.capacity.placeholder: only text"):
        mapping(fields={"capacity": {"placeholder": "0"}})


PHONES = {
    "cp_first": {"names": "phones[type=work].number"},
    "cp_second": {"names": ["who.phones[type=a.b].number", "second"]},
}
WORK = {"type": "work", "number": "+62811000111", "main": True}
HOME = {"type": "home", "number": "+62811000222"}


@pytest.mark.parametrize(
    "record,expected",
    [
        ({}, {}),
        ({"phones": None}, {}),
        ({"phones": "+62811000111"}, {}),
        ({"phones": [HOME, WORK]}, {"cp_first": "+62811000111"}),
        ({"phones": [WORK, {**WORK, "number": "2"}]}, {"cp_first": "+62811000111"}),
        ({"phones": [{"type": "work"}]}, {}),
        ({"phones": [HOME]}, {"cp_first": None}),
        ({"phones": ["work", None, [WORK], {"type": None}]}, {"cp_first": None}),
        ({"phones": []}, {"cp_first": None}),
        ({"phones[type=work].number": "literal"}, {"cp_first": "literal"}),
        ({"who": {"phones": [{"type": "a.b", "number": "dots"}]}}, {"cp_second": "dots"}),
        ({"who": {}, "second": "next"}, {"cp_second": "next"}),
    ],
)
def test_an_object_of_a_list_is_chosen_by_what_it_says(
    record: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Wherever it stands; a list without it says that there is none, and no list says nothing."""
    assert mapping(fields=PHONES).to_contact(record) == expected


@pytest.mark.parametrize(
    "known,value,phones",
    [
        (None, "1", [{"type": "work", "number": "1"}]),
        ({}, "1", [{"type": "work", "number": "1"}]),
        ({"phones": None}, "1", [{"type": "work", "number": "1"}]),
        ({"phones": [HOME, WORK]}, "1", [HOME, {**WORK, "number": "1"}]),
        ({"phones": [HOME, WORK]}, None, [HOME, {**WORK, "number": None}]),
        ({"phones": [HOME]}, "1", [HOME, {"type": "work", "number": "1"}]),
    ],
)
def test_the_list_goes_out_whole(known: Any, value: str | None, phones: list[Any]) -> None:
    """With all that the record is known to hold, since CRMs replace lists."""
    made = mapping(fields=PHONES)
    written = made.to_external({"cp_first": value}, ["cp_first"], {}, known)
    assert written == {"phones": phones}
    assert made.to_contact(written) == {"cp_first": value}
    assert known in (None, {}, {"phones": None}, {"phones": [HOME, WORK]}, {"phones": [HOME]})


def test_two_fields_share_a_list() -> None:
    """Each in an object of its own."""
    both = {"cp_first": {"names": "phones[type=work].n"}, "cp_second": {"names": "phones[type=home].n"}}
    written = mapping(fields=both).to_external(
        {"cp_first": "1", "cp_second": "2"}, ["cp_first", "cp_second"], {}, {"phones": []}
    )
    assert written == {"phones": [{"type": "work", "n": "1"}, {"type": "home", "n": "2"}]}


@pytest.mark.parametrize("path", ["phones[type=work]", "phones[type=work].number.x"])
def test_a_choice_leads_to_one_value(path: str) -> None:
    """What is there is not overwritten by something else."""
    with pytest.raises(RecordRejected, match="runs through another value"):
        mapping(fields={"cp_first": {"names": path}}).to_external(
            {"cp_first": "1"}, ["cp_first"], {}, {"phones": [WORK]}
        )


@pytest.mark.parametrize("path", ["a[b]", "a[=b]", "[a=b]", "a[b=c]d", "a[b=]"])
def test_other_brackets_are_part_of_a_key(path: str) -> None:
    """Some CRMs have such names."""
    made = mapping(fields={"notes": {"names": path}})
    assert made.to_contact({path: "x"}) == {"notes": "x"}
    assert made.to_external({"notes": "x"}, ["notes"], {}, None) == {path: "x"}
