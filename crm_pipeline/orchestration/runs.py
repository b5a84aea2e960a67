"""What Dagster remembers of our runs, asked by the schedule and the sensors."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

import dagster as dg

from crm_pipeline.orchestration.jobs import TAGS

_OURS = dict(TAGS)
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_NOT_STARTED = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING]
_LOOKED_AT = 100
"""Runs looked at, the newest."""
_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_WAITS = tuple(timedelta(seconds=seconds) for seconds in (0, 30, 60, 120, 240, 480, 900))
"""After so many failures in a row, so long a rest."""


def under_way(instance: dg.DagsterInstance, jobs: Collection[str], besides: str | None = None) -> str | None:
    """The id of a run of one of these jobs that is queued or in progress, ``besides`` a certain one."""
    unfinished = instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED, tags=_OURS))
    found = (run.run_id for run in unfinished if run.job_name in jobs and run.run_id != besides)
    return next(found, None)


def last_requested(instance: dg.DagsterInstance, schedule: str) -> datetime | None:
    """When this schedule last had a run made, whatever became of that run."""
    asked = dg.RunsFilter(tags={**_OURS, "dagster/schedule_name": schedule})
    records = instance.get_run_records(asked, limit=1)
    return records[0].create_timestamp if records else None


def failing(instance: dg.DagsterInstance) -> list[str]:
    """Jobs of ours whose newest finished run failed. Single assets and backfills have no job to recover."""
    newest: dict[str, dg.DagsterRun] = {}
    for run in instance.get_runs(dg.RunsFilter(statuses=_FINISHED, tags=_OURS), limit=_LOOKED_AT):
        newest.setdefault(run.job_name, run)
    return sorted(name for name, run in newest.items() if run.is_failure and not name.startswith("__"))


def oldest_queued(instance: dg.DagsterInstance) -> datetime | None:
    """When the run was made that has waited longest for its start; None when none waits."""
    waiting = dg.RunsFilter(statuses=_NOT_STARTED, tags=_OURS)
    records = instance.get_run_records(waiting, limit=1, ascending=True)
    return records[0].create_timestamp if records else None


def rests_until(
    instance: dg.DagsterInstance, job: str, waiting_since: datetime | None = None
) -> datetime | None:
    """When a job that keeps failing may be tried again; None when nothing speaks against trying now.

    Rows that fail one by one have times of their own. This is for what fails before it comes to
    any row, such as a key that the CRM refuses. Where all that waits has come since the last run,
    that run did its work, whatever else it failed at.
    """
    finished = dg.RunsFilter(job_name=job, statuses=_FINISHED, tags=_OURS)
    records = instance.get_run_records(finished, limit=len(_WAITS) - 1)
    won = (number for number, record in enumerate(records) if record.dagster_run.is_success)
    failures = next(won, len(records))
    if not failures or (waiting_since is not None and waiting_since > records[0].create_timestamp):
        return None
    return records[0].update_timestamp + _WAITS[failures]
