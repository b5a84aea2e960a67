"""What the asset checks find."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from crm_pipeline.orchestration import checks
from crm_pipeline.orchestration.checks import Evidence
from crm_pipeline.sync.health import Health
from crm_pipeline_tests.orchestration.fakes import WELL

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
RULES = [*checks.CONNECTION_RULES, *checks.CONTACT_RULES]


def _seen(health: Health = WELL, *, polling: bool = True) -> Evidence:
    return Evidence(health, polling, timedelta(minutes=30), NOON)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_all_is_well(rule: checks.Rule) -> None:
    """A healthy sync passes every check."""
    assert rule(_seen()).passed


@pytest.mark.parametrize("age, passed", [(0, True), (65, True), (66, False), (100_000, False)], ids=str)
def test_freshness_allows_two_intervals(age: int, *, passed: bool) -> None:
    """A missed poll is forgiven once; the age is told in minutes."""
    finding = checks.freshness(_seen(replace(WELL, last_read_at=NOON - timedelta(minutes=age))))
    assert finding.passed is passed
    assert finding.figures == {"interval_minutes": 30, "age_minutes": age}


def test_freshness_before_the_first_read() -> None:
    """Polling that never read the CRM to its end is not fresh."""
    assert not checks.freshness(_seen(replace(WELL, last_read_at=None))).passed


def test_freshness_is_nothing_to_ask_of_webhooks() -> None:
    """Without polling no read is expected."""
    finding = checks.freshness(_seen(replace(WELL, last_read_at=None), polling=False))
    assert finding.passed
    assert finding.text == "polling is switched off"


@pytest.mark.parametrize("health", [replace(WELL, pull_rejects=1), replace(WELL, push_rejects=1)])
def test_one_open_reject_warns(health: Health) -> None:
    """Any open reject, of a record or of a contact, is told with its figures."""
    finding = checks.rejects(_seen(health))
    assert not finding.passed
    figures = finding.figures
    assert (figures["pull_rejects"], figures["push_rejects"]) == (health.pull_rejects, health.push_rejects)


def test_the_reject_rate_is_that_of_landed_records() -> None:
    """20 of 20,000 is one in a thousand; nothing landed is no division by zero."""
    assert (
        checks.rejects(_seen(replace(WELL, pull_rejects=20, landed=20_000))).figures["reject_rate"] == 0.001
    )
    assert checks.rejects(_seen(replace(WELL, landed=0))).figures["reject_rate"] == 0.0


@pytest.mark.parametrize("minutes, passed", [(0.5, True), (5, True), (5.1, False), (600, False)], ids=str)
def test_a_webhook_that_waits_for_long_is_found(minutes: float, *, passed: bool) -> None:
    """Seconds are usual, minutes are not; how many wait and how long is told."""
    waits = replace(WELL, events_waiting=3, oldest_event_at=NOON - timedelta(minutes=minutes))
    finding = checks.backlog(_seen(waits))
    assert finding.passed is passed
    assert finding.figures == {"waiting": 3, "oldest_minutes": minutes}


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
def test_every_record_ended_somewhere(health: Health, *, passed: bool) -> None:
    """A record that vanished, or was rejected without its reasons, is found."""
    assert checks.counts_add_up(_seen(health)).passed is passed


@pytest.mark.parametrize("health", [replace(WELL, odd_deal_status=1), replace(WELL, odd_status=1)])
def test_an_unknown_choice_of_another_program_is_found(health: Health) -> None:
    """One value that nobody knows is enough."""
    assert not checks.known_choices(_seen(health)).passed


def test_a_doubled_person_is_found() -> None:
    """Two spellings of one WhatsApp id in two rows."""
    assert not checks.one_row_each(_seen(replace(WELL, doubled=1))).passed


@pytest.mark.parametrize("definition", [checks.connection_checks, checks.contact_checks])
def test_checks_stop_nothing(definition: dg.AssetChecksDefinition) -> None:
    """A check never blocks what comes after it."""
    assert [spec for spec in definition.check_specs if spec.blocking] == []
