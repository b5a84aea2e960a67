"""The invented contacts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import phonenumbers

from crm_pipeline.simulators.contacts import generate_contacts

NOW = datetime(2026, 1, 5, 10, tzinfo=UTC)


def test_same_seed_same_contacts() -> None:
    """A seed and a moment fix every contact; a longer list starts with the shorter one."""
    contacts = list(generate_contacts(50, seed=7, now=NOW))
    assert contacts == list(generate_contacts(200, seed=7, now=NOW))[:50]
    assert contacts != list(generate_contacts(50, seed=8, now=NOW))


def test_ids_and_phones_are_unique_and_well_formed() -> None:
    """No two contacts share an id or a phone, and a phone library takes every one for a mobile number."""
    contacts = list(generate_contacts(2_000, now=NOW))
    assert (
        len({contact["id"] for contact in contacts})
        == len({contact["phone"] for contact in contacts})
        == 2_000
    )
    for contact in contacts[::100]:
        digits = contact["phone"].removesuffix("@c.us")
        number = phonenumbers.parse(f"+{digits}")
        assert phonenumbers.is_valid_number(number)
        written = phonenumbers.parse(contact["phone_1"], "ID")
        assert written.national_number == number.national_number


def test_changes_are_spread_over_the_days_asked_for() -> None:
    """Every day of the span has changes, none lies outside, and some share one instant."""
    contacts = list(generate_contacts(2_000, now=NOW, days=10))
    changed = sorted(datetime.fromisoformat(contact["updated_at"]) for contact in contacts)
    assert NOW - timedelta(days=10) <= changed[0]
    assert changed[-1] <= NOW
    assert {(NOW - moment).days for moment in changed} >= set(range(10))
    assert any(earlier == later for earlier, later in pairwise(changed))


def test_contacts_look_like_the_guides() -> None:
    """Attributes have the guide's names and types; prices and capacities are whole, dates in order."""
    deals = 0
    for contact in generate_contacts(500, now=NOW):
        assert type(contact["ticket_price"]) is int
        assert contact["ticket_price"] >= 0
        assert type(contact["capacity"]) is int
        assert contact["created_at"] <= contact["updated_at"]
        dates = [contact[name] for name in ("meeting_date", "sale_date", "event_date") if contact[name]]
        assert dates == sorted(dates)
        assert all(datetime.fromisoformat(date).tzinfo is UTC for date in dates)
        deals += contact["status"] == "deal"
    assert deals > 20
