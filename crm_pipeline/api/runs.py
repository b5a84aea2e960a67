"""Runs: the manual fetch, a Dagster run like the schedule's that somebody waits for."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from crm_pipeline import instants
from crm_pipeline.api.problems import Problem, passing
from crm_pipeline.api.threads import in_thread
from crm_pipeline.service import ExternalCrmService
from crm_pipeline.store import leases, ledger
from crm_pipeline.store.engine import reading, writing
from crm_pipeline.store.keeping import give_back, kept
from crm_pipeline.sync.reports import CONTACT_IDS_KEPT

if TYPE_CHECKING:
    import dagster as dg

_JOB = "pull_job"
_COUNTS = ("seen", "created", "updated", "unchanged", "skipped", "rejected")
_QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
"""Dagster would write every event of the run to our log."""
_LOOK_SECONDS = 0.25


class Dagster:
    """Dagster's instance and our job, opened when first needed: importing them takes seconds."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._stack = ExitStack()
        self._opening = threading.Lock()
        self._opened: dg.DagsterInstance | None = None

    @property
    def configured(self) -> bool:
        """Whether it is known where Dagster keeps its things."""
        return bool(os.environ.get("DAGSTER_HOME"))

    def instance(self) -> dg.DagsterInstance:
        """The instance of ``DAGSTER_HOME``."""
        with self._opening:
            if self._opened is None:
                self._opened = self._stack.enter_context(_open_instance(os.environ["DAGSTER_HOME"]))
            return self._opened

    @cached_property
    def job(self) -> dg.JobDefinition:
        """The job that pulls and applies."""
        from crm_pipeline.definitions import defs  # noqa: PLC0415 - see the class

        return defs.resolve_job_def(_JOB)

    def heartbeat_age(self) -> float | None:
        """Seconds since Dagster's daemon was last alive; None while that is not known."""
        if self._opened is None:
            return None
        beats = [beat.timestamp for beat in self._opened.get_daemon_heartbeats().values()]
        return round(instants.now().timestamp() - max(beats), 1) if beats else None

    def note_push(self, action: str) -> None:
        """Show a push by hand where the pushes of runs are shown."""
        import dagster as dg  # noqa: PLC0415 - see the class

        figures = {name: int(name in {"seen", action}) for name in _COUNTS}
        self.instance().report_runless_asset_event(dg.AssetMaterialization("outbound_push", metadata=figures))

    def close(self) -> None:
        """Give the instance back."""
        self._stack.close()


def _open_instance(home: str) -> dg.DagsterInstance:
    import dagster as dg  # noqa: PLC0415 - see Dagster
    from dagster._core.instance.ref import InstanceRef  # noqa: PLC0415

    # Dagster captures a run's output by redirecting that of the whole process, and this one
    # answers other requests meanwhile.
    nothing = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(home, overrides={"compute_logs": nothing}))


class Fetcher:
    """Pulls on request; whoever asks while one is under way, here or in another process, waits for that."""

    def __init__(self, service: ExternalCrmService, dagster: Dagster) -> None:
        """Fetch for this service's connection."""
        self._service = service
        self._dagster = dagster
        self._running: asyncio.Task[dict[str, Any]] | None = None
        self._run_id: str | None = None

    async def fetch(self, request_id: str) -> dict[str, Any]:
        """Pull what changed and apply it; what the endpoint answers.

        Args:
            request_id: the run's tag says which request asked for it.

        Raises:
            Problem: the run failed, or there is no Dagster to run it.
        """
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(in_thread(lambda: self._fetch(request_id), "fetch"))
            self._running.add_done_callback(_heard)
        return await asyncio.shield(self._running)

    def abandon(self) -> None:
        """Say in Dagster that the run under way ends with this process. What it has done, stands."""
        if self._running is None or self._running.done() or self._run_id is None:
            return
        instance = self._dagster.instance()
        run = instance.get_run_by_id(self._run_id)
        if run is not None and not run.is_finished:
            instance.report_run_failed(run, "The API was stopped while it waited for this run.")

    def _fetch(self, request_id: str) -> dict[str, Any]:
        if not self._dagster.configured:
            raise Problem(503, "A fetch is a Dagster run, and DAGSTER_HOME is not set.")
        run_id = str(uuid.uuid4())
        with self._sole(run_id) as other:
            told = self._other(other) if other is not None else None
            return told if told is not None else self._own(run_id, request_id)

    @contextmanager
    def _sole(self, run_id: str) -> Iterator[str | None]:
        """Be the one process that fetches; the id of the run that we waited for, if there was one."""
        engine, name, holder = self._service.engine, self._lease, leases.new_holder(run_id)
        other = None
        while not self._taken(name, holder):
            with reading(engine) as tx:
                other = leases.token_of(tx, name) or other
            time.sleep(_LOOK_SECONDS)
        try:
            with kept(engine, name, holder, instants.now):
                yield other
        finally:
            give_back(engine, name, holder)

    @property
    def _lease(self) -> str:
        return f"fetch/{self._service.connection.name}"

    def _taken(self, name: str, holder: str) -> bool:
        with writing(self._service.engine) as tx:
            return leases.take(tx, name, holder, instants.now())

    def _other(self, run_id: str) -> dict[str, Any] | None:
        """What came of another process's run; None when that process has died over it."""
        instance = self._dagster.instance()
        run = instance.get_run_by_id(run_id)
        if run is None or not run.is_finished:
            return None
        entries = instance.all_logs(run_id)
        events = [entry.dagster_event for entry in entries if entry.dagster_event is not None]
        if not run.is_success:
            raise _failure(run_id, events)
        return self._answer(run_id, events)

    def _own(self, run_id: str, request_id: str) -> dict[str, Any]:
        result = self._execute(run_id, request_id)
        if not result.success:
            raise _failure(run_id, result.all_events)
        return self._answer(run_id, result.all_events)

    def _execute(self, run_id: str, request_id: str) -> dg.ExecuteInProcessResult:
        from dagster import RunConfig  # noqa: PLC0415 - see Dagster

        from crm_pipeline.orchestration.assets import Mode, PullConfig  # noqa: PLC0415
        from crm_pipeline.orchestration.days import days_to_read  # noqa: PLC0415

        first, last = days_to_read(self._service.watermark, instants.now())
        self._run_id = run_id
        return self._dagster.job.execute_in_process(
            instance=self._dagster.instance(),
            raise_on_error=False,
            run_id=run_id,
            run_config=RunConfig(
                ops={"external_contacts": PullConfig(mode=Mode.incremental)}, loggers=_QUIET
            ),
            tags={
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
                "crm/request_id": request_id,
            },
        )

    def _answer(self, run_id: str, events: Sequence[dg.DagsterEvent]) -> dict[str, Any]:
        figures = next(
            event.materialization.metadata
            for event in reversed(events)
            if event.is_step_materialization and event.step_key == "contacts"
        )
        counts = {name: figures[name].value for name in _COUNTS}
        with reading(self._service.engine) as tx:
            changed = ledger.contacts_changed(tx, self._service.connection.name, run_id, CONTACT_IDS_KEPT)
        return {
            "success": True,
            "syncedRecords": counts["seen"],
            "userIds": changed,
            "runId": run_id,
            "counts": counts,
        }


def _heard(task: asyncio.Task[Any]) -> None:
    """Take note of a failure that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def _failure(run_id: str, events: Sequence[dg.DagsterEvent]) -> Problem:
    """Why a run failed. Steps tell it as ``Kind: text`` where the text may be shown."""
    told = [
        event.step_failure_data.user_failure_data.description or ""
        for event in events
        if event.is_step_failure and event.step_failure_data.user_failure_data
    ]
    kind, _, text = (told[0] if told else "").partition(": ")
    make = _KINDS.get(kind)
    if make is not None:
        return make(text)
    shown = text if kind.isidentifier() and kind.endswith("Error") else "The pull failed."
    return Problem(502, shown, runId=run_id)


_KINDS: dict[str, Callable[[str], Problem]] = {
    "BusyError": lambda text: passing(409, text),
    "DisabledError": lambda text: Problem(503, text),
    "OutdatedDatabaseError": lambda text: passing(503, text),
    "Database": lambda _: passing(503, "The database cannot be used now."),
}
