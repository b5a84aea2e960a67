"""What the rules find, that checks and alerts go by."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from crm_pipeline.sync import rules
from crm_pipeline.sync.budget import Spent
from crm_pipeline.sync.evidence import Evidence, Reads
from crm_pipeline.sync.health import Health
from crm_pipeline.sync.rules import RULES, Finding
from crm_pipeline.sync.sample import Sample
from crm_pipeline.sync.shape import Shape
from crm_pipeline_tests.orchestration.fakes import WELL

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FINE = Evidence(
    NOON, polling=True, interval=30 * MINUTE, reads=Reads(NOON - 20 * MINUTE, NOON - 25 * MINUTE), health=WELL
)


def _seen(health: Health) -> Evidence:
    return replace(FINE, health=health)


def _read(read_at: datetime | None, mark: datetime | None = None, newest: datetime | None = None) -> Evidence:
    return replace(FINE, reads=Reads(read_at, mark, newest))


@pytest.mark.parametrize(
    "rule", [rule for part in RULES.values() for rule in part], ids=lambda rule: str(rule.__name__)
)
def test_all_is_well(rule: rules.Rule) -> None:
    """A healthy sync passes every rule."""
    assert rule(FINE).passed


def test_no_two_rules_share_a_name() -> None:
    """Incidents go by it."""
    names = [rule.__name__ for part in RULES.values() for rule in part]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "age, passed, grave",
    [(0, True, False), (65, True, False), (66, False, False), (1440, False, False), (1441, False, True)],
    ids=str,
)
def test_freshness_allows_two_intervals(age: int, *, passed: bool, grave: bool) -> None:
    """A missed poll is forgiven once; a day without one is an error. The age is told in minutes."""
    finding = rules.freshness(_read(NOON - age * MINUTE))
    assert (finding.passed, finding.grave) == (passed, grave)
    assert finding.figures == {"interval_minutes": 30, "age_minutes": age}


@pytest.mark.parametrize(
    "age, passed, grave",
    [(None, True, False), (0, True, False), (65, True, False), (66, False, False), (1441, False, True)],
    ids=str,
)
def test_freshness_before_the_first_read(age: int | None, *, passed: bool, grave: bool) -> None:
    """A new system has the same time; days without any complete read are an error."""
    began_at = None if age is None else NOON - age * MINUTE
    finding = rules.freshness(replace(FINE, reads=Reads(began_at=began_at)))
    assert (finding.passed, finding.grave) == (passed, grave)
    assert "age_minutes" not in finding.figures
    assert finding.text == ("nothing has begun yet" if age is None else "the CRM was never read to its end")


def test_freshness_is_nothing_to_ask_of_webhooks() -> None:
    """Without polling no read is expected."""
    finding = rules.freshness(replace(_read(None), polling=False))
    assert finding.passed
    assert finding.text == "polling is switched off"


@pytest.mark.parametrize(
    "mark, newest, passed, grave",
    [
        (None, None, True, False),
        (NOON - timedelta(days=30), None, True, False),
        (NOON - timedelta(days=30), NOON - timedelta(days=30), True, False),
        (NOON - 30 * MINUTE, NOON - 26 * MINUTE, True, False),
        (NOON - 30 * MINUTE, NOON - 20 * MINUTE, False, False),
        (NOON + 4 * MINUTE, NOON, True, False),
        (NOON + 6 * MINUTE, NOON, False, True),
    ],
    ids=["never", "quiet", "quiet-and-read", "overlap", "stuck", "nearly-now", "ahead"],
)
def test_a_watermark_that_does_not_follow(
    mark: datetime | None, newest: datetime | None, *, passed: bool, grave: bool
) -> None:
    """A quiet CRM is fine; newer records that were read and not counted, or a time to come, are not."""
    finding = rules.watermark(_read(NOON, mark, newest))
    assert (finding.passed, finding.grave) == (passed, grave)


@pytest.mark.parametrize(
    "spent, share, passed, grave",
    [
        (Spent(5000), 0.9, True, False),
        (Spent(719, 1000), 0.9, True, False),
        (Spent(720, 1000), 0.9, False, False),
        (Spent(900, 1000), 0.9, False, True),
        (Spent(10, 1000, 250), 0.9, False, False),
        (Spent(10, 1000, 100), 0.9, False, True),
        (Spent(0, 1000, 0), 0.9, True, False),
    ],
    ids=["unlimited", "room", "low", "spent", "low-by-others", "spent-by-others", "told-yesterday"],
)
def test_the_budget_of_the_day(spent: Spent, share: float, *, passed: bool, grave: bool) -> None:
    """80 % of our share warns, all of it is an error; what others use of the account counts."""
    finding = rules.budget(replace(FINE, budget=spent, daily_share=share))
    assert (finding.passed, finding.grave) == (passed, grave)


def test_a_changed_schema_names_fields() -> None:
    """A vanished field is an error, another kind of value a warning; both name the contact's fields."""
    changed = rules.record_shape(replace(FINE, shape=Shape(3, (), ("capacity",))))
    assert changed == Finding(
        passed=False,
        figures={"fields": 3, "vanished": 0, "changed": 1},
        text="another kind of value: capacity",
    )
    vanished = rules.record_shape(replace(FINE, shape=Shape(3, ("nama",), ())))
    assert (vanished.passed, vanished.grave, vanished.text) == (False, True, "vanished: nama")


def test_a_choice_that_nobody_knows_warns() -> None:
    """One rejected record is enough."""
    assert not rules.unknown_choices(replace(FINE, unknown_choices=1)).passed


@pytest.mark.parametrize("kind", ["pull_rejects", "webhook_rejects", "push_rejects"])
def test_one_open_reject_warns(kind: str) -> None:
    """Any open reject, of a record, a webhook or a contact, is told with its figures."""
    finding = rules.rejects(_seen(replace(WELL, **{kind: 1})))  # type: ignore[arg-type]
    assert (finding.passed, finding.grave) == (False, False)
    rejected = {name: number for name, number in finding.figures.items() if name.endswith("_rejects")}
    assert rejected == {"pull_rejects": 0, "webhook_rejects": 0, "push_rejects": 0, kind: 1}


@pytest.mark.parametrize(
    "rejected, landed, grave", [(1000, 20_000, False), (1001, 20_000, True), (9, 10, False)]
)
def test_many_rejects_are_an_error(rejected: int, landed: int, *, grave: bool) -> None:
    """More than one in twenty, unless there are but a few."""
    finding = rules.rejects(_seen(replace(WELL, pull_rejects=rejected, landed=landed)))
    assert finding.grave is grave
    assert finding.figures["reject_rate"] == round(rejected / landed, 6)


@pytest.mark.parametrize(
    "health, grave",
    [
        (replace(WELL, landed=0, webhook_rejects=9), False),
        (replace(WELL, landed=0, webhook_rejects=10), True),
        (replace(WELL, landed=190, webhook_rejects=10), False),
        (replace(WELL, landed=189, webhook_rejects=10), True),
        (replace(WELL, landed=189, webhook_rejects=5, pull_rejects=5), True),
        (replace(WELL, contacts=200, push_rejects=10), False),
        (replace(WELL, contacts=199, push_rejects=10), True),
        (replace(WELL, contacts=1_000_000, push_rejects=999), False),
        (replace(WELL, contacts=1_000_000, push_rejects=1000), True),
    ],
)
def test_many_rejected_webhooks_and_pushes_are_an_error(health: Health, *, grave: bool) -> None:
    """By the same share; a thousand failed pushes are many whatever the share."""
    assert rules.rejects(_seen(health)).grave is grave


def test_nothing_landed_is_no_division_by_zero() -> None:
    """A rate of nothing is nothing."""
    assert rules.rejects(_seen(replace(WELL, landed=0))).figures["reject_rate"] == 0.0


@pytest.mark.parametrize(
    "minutes, passed, grave",
    [(0.5, True, False), (5, True, False), (5.1, False, False), (600, False, True)],
    ids=str,
)
def test_a_webhook_that_waits_for_long_is_found(minutes: float, *, passed: bool, grave: bool) -> None:
    """Seconds are usual, minutes are not; how many wait and how long is told."""
    waits = replace(WELL, events_waiting=3, oldest_event_at=NOON - minutes * MINUTE)
    finding = rules.backlog(_seen(waits))
    assert (finding.passed, finding.grave) == (passed, grave)
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
    assert rules.counts_add_up(_seen(health)).passed is passed


@pytest.mark.parametrize("health", [replace(WELL, odd_deal_status=1), replace(WELL, odd_status=1)])
def test_an_unknown_choice_of_another_program_is_found(health: Health) -> None:
    """One value that nobody knows is enough."""
    assert not rules.known_choices(_seen(health)).passed


@pytest.mark.parametrize("health", [replace(WELL, doubled=1), replace(WELL, claimed=1)])
def test_a_doubled_person_is_found(health: Health) -> None:
    """Two spellings of one WhatsApp id in two rows, or two records of one contact."""
    assert not rules.one_row_each(_seen(health)).passed


@pytest.mark.parametrize("differing, grave", [(1, False), (9, False), (10, True)])
def test_a_sample_that_differs_is_found(differing: int, *, grave: bool) -> None:
    """One pair warns; many are an error."""
    finding = rules.sampled_parity(replace(FINE, sample=Sample(100, differing)))
    assert (finding.passed, finding.grave) == (False, grave)


@pytest.mark.parametrize("written, back, passed", [(50, 9, True), (100, 10, True), (100, 11, False)])
def test_what_the_crm_changes_after_us_is_found(written: int, back: int, *, passed: bool) -> None:
    """One in ten may be somebody's edit; more, and a program undoes our writes."""
    assert rules.echoes(replace(FINE, written=written, came_back=back)).passed is passed
