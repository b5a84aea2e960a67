"""Conditions: everything that is wrong now, from the rules, our own runs and Dagster's. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from crm_pipeline.sync.evidence import PARTS, Evidence
from crm_pipeline.sync.rules import judge

QUEUED_TOO_LONG = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that is wrong."""

    key: str
    """The same thing has the same key, whoever finds it."""
    grave: bool
    text: str
    figures: Mapping[str, int | float]


@dataclass(frozen=True, slots=True)
class Runs:
    """What our runs and Dagster's say."""

    failing_steps: Mapping[str, str]
    """Steps whose last end was a failure, with its reason."""
    left_by_reconcile: int = 0
    """Silent differences that the newest comparison of both sides left."""
    failing_jobs: tuple[str, ...] = ()
    """Jobs whose last run failed."""
    queued_since: datetime | None = None
    """When the run that has waited longest for its start was made."""


def conditions(seen: Evidence, runs: Runs) -> list[Condition]:
    """All that is wrong, without a person or a secret in it."""
    return [*_of_rules(seen), *_of_steps(runs.failing_steps), *_of_runs(seen.now, runs)]


def _of_rules(seen: Evidence) -> Iterator[Condition]:
    for name, finding in judge(seen, PARTS).items():
        if not finding.passed:
            text = f"the check '{name}' fails" + (f": {finding.text}" if finding.text else "")
            yield Condition(f"check {name}", finding.grave, text, finding.figures)


def _of_steps(failing: Mapping[str, str]) -> Iterator[Condition]:
    for step, reason in failing.items():
        yield Condition(f"step {step}", grave=True, text=f"{step} fails: {reason}", figures={})


def _of_runs(now: datetime, runs: Runs) -> Iterable[Condition]:
    if runs.left_by_reconcile:
        text = "both sides differ silently: crm-pipeline reconcile --list names what differs"
        figures = {"differing": runs.left_by_reconcile}
        yield Condition("check both_sides_agree", grave=False, text=text, figures=figures)
    if not runs.failing_steps:  # a failed step fails its job: one of the two is enough
        for job in runs.failing_jobs:
            text = f"the last run of {job} failed: the Dagster UI shows why"
            yield Condition(f"job {job}", grave=True, text=text, figures={})
    if runs.queued_since is not None and now - runs.queued_since > QUEUED_TOO_LONG:
        minutes = round((now - runs.queued_since) / timedelta(minutes=1))
        text = "runs of Dagster wait and do not start"
        yield Condition("queue", grave=True, text=text, figures={"minutes": minutes})
