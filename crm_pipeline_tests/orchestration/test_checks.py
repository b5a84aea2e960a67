"""What the asset checks find."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from crm_pipeline.orchestration import checks
from crm_pipeline.orchestration.checks import Health

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
WELL = Health(
    polling=True,
    interval_minutes=30,
    last_read_at=NOON - timedelta(minutes=20),
    contacts=90,
    outcomes={"created": 80, "updated": 5, "unchanged": 5, "skipped": 10, "rejected": 0},
    waiting=0,
    landed=100,
    pull_rejects=0,
    push_rejects=0,
    odd_deal_status=0,
    odd_status=0,
    doubled=0,
)
RULES = [*checks.CONNECTION_RULES, *checks.CONTACT_RULES]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_all_is_well(rule: checks.Rule) -> None:
    """A healthy sync passes every check."""
    assert rule(WELL, NOON).passed


@pytest.mark.parametrize(
    "age, passed", [(0, True), (65, True), (66, False), (100_000, False)], ids=lambda value: str(value)
)
def test_freshness_allows_two_intervals(age: int, passed: bool) -> None:
    """A missed poll is forgiven once; the age is told in minutes."""
    finding = checks.freshness(replace(WELL, last_read_at=NOON - timedelta(minutes=age)), NOON)
    assert finding.passed is passed
    assert finding.figures == {"interval_minutes": 30, "age_minutes": age}


def test_freshness_before_the_first_read() -> None:
    """Polling that never read the CRM to its end is not fresh."""
    assert not checks.freshness(replace(WELL, last_read_at=None), NOON).passed


def test_freshness_is_nothing_to_ask_of_webhooks() -> None:
    """Without polling no read is expected."""
    finding = checks.freshness(replace(WELL, polling=False, last_read_at=None), NOON)
    assert finding.passed
    assert finding.text == "polling is switched off"


@pytest.mark.parametrize("side", ["pull_rejects", "push_rejects"])
def test_one_open_reject_warns(side: str) -> None:
    """Any open reject, of a record or of a contact, is told with its figures."""
    finding = checks.rejects(replace(WELL, **{side: 1}), NOON)
    assert not finding.passed
    assert finding.figures[side] == 1


def test_the_reject_rate_is_that_of_landed_records() -> None:
    """20 of 20,000 is one in a thousand; nothing landed is no division by zero."""
    assert checks.rejects(replace(WELL, pull_rejects=20, landed=20_000), NOON).figures["reject_rate"] == 0.001
    assert checks.rejects(replace(WELL, landed=0), NOON).figures["reject_rate"] == 0.0


@pytest.mark.parametrize(
    "health, passed",
    [
        (replace(WELL, landed=101), False),
        (replace(WELL, landed=101, waiting=1), True),
        (replace(WELL, outcomes={"created": 95, "rejected": 5}, pull_rejects=5), True),
        (replace(WELL, outcomes={"created": 95, "rejected": 5}, pull_rejects=4), False),
        (replace(WELL, pull_rejects=1), False),
        (replace(WELL, landed=101, waiting=1, pull_rejects=1), True),
    ],
    ids=["lost", "waiting", "rejected", "without-reasons", "reasons-without-record", "tried-again"],
)
def test_every_record_ended_somewhere(health: Health, passed: bool) -> None:
    """A record that vanished, or was rejected without its reasons, is found."""
    assert checks.counts_add_up(health, NOON).passed is passed


@pytest.mark.parametrize("column", ["odd_deal_status", "odd_status"])
def test_an_unknown_choice_of_another_program_is_found(column: str) -> None:
    """One value that nobody knows is enough."""
    assert not checks.known_choices(replace(WELL, **{column: 1}), NOON).passed


def test_a_doubled_person_is_found() -> None:
    """Two spellings of one WhatsApp id in two rows."""
    assert not checks.one_row_each(replace(WELL, doubled=1), NOON).passed


@pytest.mark.parametrize("definition", [checks.connection_checks, checks.contact_checks])
def test_checks_stop_nothing(definition: dg.AssetChecksDefinition) -> None:
    """A check never blocks what comes after it."""
    assert [spec for spec in definition.check_specs if spec.blocking] == []
