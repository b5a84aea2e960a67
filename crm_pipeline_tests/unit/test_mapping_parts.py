"""Fields kept in several places, CRMs with a word for nothing, and times as the CRM writes them."""

from __future__ import annotations

from typing import Any

import pytest

from crm_pipeline.connection import Connection
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
