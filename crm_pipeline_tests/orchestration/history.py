"""Runs in Dagster's storage, as workers would have left them."""

from __future__ import annotations

from datetime import datetime

import dagster as dg
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from crm_pipeline.definitions import defs


def add_run(instance: dg.DagsterInstance, job: str, status: dg.DagsterRunStatus, **tags: str) -> str:
    """Store a run of a job and return its id."""
    location = RegisteredCodeLocationOrigin("crm_pipeline")
    run = dg.DagsterRun(
        job_name=job,
        status=status,
        tags={**defs.resolve_job_def(job).tags, **tags},
        remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job),
    )
    return instance.add_run(run).run_id


def newest_run_at(instance: dg.DagsterInstance) -> datetime:
    """When the newest run was made, by Dagster's clock."""
    return instance.get_run_records(limit=1)[0].create_timestamp
