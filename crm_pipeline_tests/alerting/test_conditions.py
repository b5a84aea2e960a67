"""What counts as wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from crm_pipeline.alerting.conditions import Condition, Runs, conditions
from crm_pipeline.sync.evidence import Evidence, Reads
from crm_pipeline_tests.orchestration.fakes import WELL

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
FINE = Evidence(NOON, polling=True, interval=timedelta(minutes=30), reads=Reads(NOON), health=WELL)


def test_all_is_well() -> None:
    """Nothing fails, nothing waits."""
    assert conditions(FINE, Runs({})) == []


def test_a_failing_check_is_a_condition_with_its_figures() -> None:
    """By the check's name, so that it is the same one tomorrow."""
    (found,) = conditions(replace(FINE, health=replace(WELL, push_rejects=1)), Runs({}))
    assert (found.key, found.grave) == ("check rejects", False)
    assert found.text == "the check 'rejects' fails: crm-pipeline rejects list says which and why"
    assert found.figures["push_rejects"] == 1


def test_a_failing_step_tells_its_reason_and_its_job_is_silent() -> None:
    """One fault, one incident."""
    found = conditions(FINE, Runs({"pull": "the CRM answered 503"}, failing_jobs=("sync_job",)))
    assert found == [Condition("step pull", grave=True, text="pull fails: the CRM answered 503", figures={})]


def test_a_job_that_fails_before_any_step_is_told() -> None:
    """Such as one whose worker is killed each time."""
    (found,) = conditions(FINE, Runs({}, failing_jobs=("webhook_job",)))
    assert (found.key, found.grave) == ("job webhook_job", True)


def test_a_queue_that_stands_is_told() -> None:
    """A quarter of an hour is longer than any run in front takes as a rule."""
    assert conditions(FINE, Runs({}, queued_since=NOON - timedelta(minutes=15))) == []
    (found,) = conditions(FINE, Runs({}, queued_since=NOON - timedelta(minutes=16)))
    assert (found.key, dict(found.figures)) == ("queue", {"minutes": 16})


def test_what_a_comparison_left_is_told() -> None:
    """Until the next one finds both sides in agreement."""
    (found,) = conditions(FINE, Runs({}, left_by_reconcile=3))
    assert (found.key, dict(found.figures)) == ("check both_sides_agree", {"differing": 3})
