"""StatusReader: what can be asked about one connection, answered from the database alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import Any, Self

from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.engine import Engine

from crm_pipeline import instants
from crm_pipeline.connection import Connection
from crm_pipeline.settings import Settings, SyncMode
from crm_pipeline.store import (
    alerts,
    channels,
    contacts,
    health,
    landing,
    leases,
    ledger,
    migrate,
    rejects,
    state,
    totals,
    webhooks,
)
from crm_pipeline.store.engine import open_database, reading
from crm_pipeline.sync.apply import too_many_deletes
from crm_pipeline.sync.budget import SharedBudget
from crm_pipeline.sync.errors import OutdatedDatabaseError, UnknownContactError
from crm_pipeline.sync.identity import NoIdentityError, whatsapp_id
from crm_pipeline.sync.reports import Counts, Report

_STEPS = ("pull", "apply", "push")


class StatusReader:
    """Answers what sensors, checks and commands ask; it changes no row and calls no CRM."""

    def __init__(self, database: str | Engine, settings: Settings) -> None:
        """Open lazily: nothing is connected before it is used.

        Args:
            database: SQLAlchemy URL or engine.
            settings: with the connection in question.
        """
        self.settings = settings
        self._database = database

    # How the sync stands.

    def get_status(self) -> dict[str, Any]:
        """How the sync stands. No secrets, no personal data."""
        name, now = self.connection.name, instants.now()
        with reading(self.engine) as tx:
            known = state.load(tx, name)
            runs = {step: state.latest_run(tx, name, step) for step in _STEPS}
            failed = [state.latest_run(tx, name, step, "failed") for step in _STEPS]
            done = [state.latest_run(tx, name, step, "done") for step in _STEPS]
            due, unapplied = webhooks.count_waiting(tx, name, now), webhooks.unapplied(tx, name)
            records, wrong = landing.count_waiting(tx, name), alerts.count_open(tx, name)
            figures = {
                "lagSeconds": _seconds(now, known.last_read_at if known else None),
                "contacts": contacts.count(tx),
                "backlog": records + due,
                "waitingRecords": records,
                "waitingWebhooks": unapplied.number,
                "oldestWebhookSeconds": _seconds(now, unapplied.oldest_at),
                "rejected": sum(rejects.count(tx, name).values()),
                "conflicts": ledger.count_open(tx, name),
                "pendingPushes": contacts.count_to_push(tx, name, now),
                "alertErrors": wrong.get(True, 0),
                "alertWarnings": wrong.get(False, 0),
            }
            channel = channels.load(tx, name)
            ever = totals.load(tx, name)
        bounds = self.connection.budget
        spent = SharedBudget(self.engine, name, bounds).spent()
        last_error = max((run for run in failed if run), key=lambda run: run.started_at, default=None)
        last_success = max((run.finished_at for run in done if run and run.finished_at), default=None)
        return {
            "enabled": self.settings.external_crm_enabled,
            "mode": self.settings.external_crm_sync_mode.value,
            "polling": "active" if self._polling(known) else "inactive",
            "configured": bool(self.connection.base_url),
            "connection": name,
            "type": self.connection.type.value,
            "push": self.settings.external_crm_push.value,
            "lastSuccess": _shown(last_success),
            "lastError": None if last_error is None else _failure(last_error),
            "watermark": _shown(known.watermark if known else None),
            **figures,
            "apiCallsToday": spent.today if bounds.calls or bounds.daily_calls else None,
            "apiQuota": spent.daily_limit,
            "apiQuotaLeft": spent.daily_left,
            "channelEnds": _shown(channel.expires_at if channel else None),
            "runs": {step: None if run is None else _run(run) for step, run in runs.items()},
            "totals": ever,
        }

    @property
    def polling(self) -> bool:
        """Whether the polling schedule may run: the flag in the database, or its start value."""
        with reading(self.engine) as tx:
            return self._polling(state.load(tx, self.connection.name))

    @property
    def watermark(self) -> datetime | None:
        """How far pulls have safely read."""
        with reading(self.engine) as tx:
            known = state.load(tx, self.connection.name)
        return known.watermark if known is not None else None

    @property
    def last_poll_at(self) -> datetime | None:
        """When the newest pull was started, however it ended."""
        with reading(self.engine) as tx:
            run = state.latest_run(tx, self.connection.name, "pull")
        return run.started_at if run is not None else None

    def records_by_day(self, since: datetime, until: datetime) -> dict[str, int]:
        """How many landed records, as last read, were modified on which day (UTC) of a window."""
        with reading(self.engine) as tx:
            return health.records_by_day(tx, self.connection.name, since, until)

    def events_pending(self) -> int:
        """How many webhooks have landed and are due to be applied, or records that were left so.

        Deletes do not count that somebody has to allow first.
        """
        name = self.connection.name
        with reading(self.engine) as tx:
            records = landing.count_waiting(tx, name)
            if records and too_many_deletes(tx, self.connection) is not None:
                records = landing.count_waiting(tx, name, deletes=False)
            return records + webhooks.count_waiting(tx, name, instants.now())

    @property
    def oldest_event_at(self) -> datetime | None:
        """When the webhook was received that has waited longest; None when none waits."""
        with reading(self.engine) as tx:
            return webhooks.unapplied(tx, self.connection.name).oldest_at

    @property
    def last_applied_by(self) -> str | None:
        """The run that was the last to apply everything that had landed."""
        with reading(self.engine) as tx:
            run = state.latest_run(tx, self.connection.name, "apply", "done")
        return run.run_id if run is not None else None

    @property
    def busy(self) -> bool:
        """Whether a worker is at work on the connection, in Dagster or anywhere else."""
        with reading(self.engine) as tx:
            return leases.is_held(tx, self.connection.name, instants.now())

    def events_due(self, since: datetime | None = None, until: datetime | None = None) -> Report:
        """Webhooks that are due, all or those received in a window, by what was expected of applying them.

        ``pending``: of all, those that are tried again later.
        """
        name, now = self.connection.name, instants.now()
        with reading(self.engine) as tx:
            due = webhooks.due_by_action(tx, name, now, since, until)
            later = webhooks.unapplied(tx, name).number - webhooks.count_waiting(tx, name, now)
        return Report("webhooks", Counts(**due), pending=later)

    def events_by_day(self, since: datetime, until: datetime) -> dict[str, int]:
        """How many webhooks were received on which day (UTC) of a window, whatever became of them."""
        with reading(self.engine) as tx:
            return health.events_by_day(tx, self.connection.name, since, until)

    def event(self, event_id: str) -> dict[str, Any] | None:
        """What became of a webhook; None when none of this name has landed."""
        with reading(self.engine) as tx:
            found = webhooks.by_event_id(tx, self.connection.name, [event_id]).get(event_id)
        if found is None:
            return None
        return {
            "eventId": found.event_id,
            "userId": found.contact_id,
            "status": found.status,
            "action": found.effect,
            "receivedAt": _shown(found.received_at),
            "appliedAt": _shown(found.applied_at),
            "attempts": found.attempts,
            "reasons": found.reasons or {},
            "runId": found.run_id,
        }

    def changes_pending(self) -> int:
        """How many contacts the CRM should hear of now."""
        with reading(self.engine) as tx:
            return contacts.count_to_push(tx, self.connection.name, instants.now())

    # What waits for a person, and what became of one.

    def incidents(self) -> list[alerts.Incident]:
        """What is wrong now, as alerts know it, oldest first."""
        with reading(self.engine) as tx:
            return alerts.open_ones(tx, self.connection.name)

    def rejects(self, limit: int | None = None) -> list[rejects.Reject]:
        """Open rejects, oldest first."""
        with reading(self.engine) as tx:
            return rejects.load(tx, self.connection.name, limit=limit)

    def reject(self, reject_id: int) -> dict[str, Any] | None:
        """One reject with the record it is about; None when there is none of this id."""
        with reading(self.engine) as tx:
            found = rejects.load(tx, self.connection.name, [reject_id])
            if not found:
                return None
            payload = landing.payload(tx, found[0].record_id) if found[0].record_id is not None else None
            if found[0].source == "webhook":
                payload = webhooks.payload(tx, self.connection.name, found[0].key)
        return {"reject": found[0], "payload": payload}

    def conflicts(self, limit: int | None = None) -> list[ledger.LedgerEntry]:
        """Fields that wait for a person, oldest first."""
        with reading(self.engine) as tx:
            return ledger.open_conflicts(tx, self.connection.name, limit)

    def past_conflicts(self, limit: int) -> tuple[list[ledger.LedgerEntry], int]:
        """The last conflicts, settled by a rule, by a person or not yet; and how many there are in all."""
        with reading(self.engine) as tx:
            return ledger.newest(tx, self.connection.name, limit), ledger.count(tx, self.connection.name)

    def conflict(self, conflict_id: int) -> ledger.LedgerEntry | None:
        """One conflict, settled or not; None when there is none of this id."""
        with reading(self.engine) as tx:
            return ledger.entry(tx, self.connection.name, conflict_id)

    def history(self, contact_id: str) -> list[ledger.PastChange]:
        """Field changes of a contact, the newest last: those under its earlier ids, too.

        Args:
            contact_id: any spelling of any id it is or was known by; it may have been deleted.

        Raises:
            UnknownContactError: no contact has or had this id.
        """
        with reading(self.engine) as tx:
            spellings = self._spellings(contact_id)
            key = contacts.find(tx, spellings)
            if key is not None:
                spellings = self._spellings(key)
            found = ledger.history(tx, self.connection.name, contacts.all_ids(tx, spellings))
        if key is None and not found:
            raise UnknownContactError(UNKNOWN)
        return found

    # Lifetime.

    @cached_property
    def engine(self) -> Engine:
        """The database, at the shape this version needs.

        Raises:
            OutdatedDatabaseError: a PostgreSQL database that waits for ``db upgrade``.
        """
        engine = open_database(self._database) if isinstance(self._database, str) else self._database
        if engine.dialect.name == "sqlite":
            migrate.upgrade(engine)
        elif not migrate.is_current(engine):
            msg = "the database is not at this version's shape: run 'crm-pipeline db upgrade'"
            raise OutdatedDatabaseError(msg)
        return engine

    @property
    def connection(self) -> Connection:
        """The CRM account."""
        return self.settings.connection

    def close(self) -> None:
        """Give the connections back."""
        if "engine" in self.__dict__ and isinstance(self._database, str):
            self.engine.dispose()

    def __enter__(self) -> Self:
        """Use it as a context manager."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close."""
        self.close()

    # Inside.

    def _polling(self, known: state.ConnectionState | None) -> bool:
        return known.polling if known is not None else self._polling_at_start

    @property
    def _polling_at_start(self) -> bool:
        return self.settings.external_crm_sync_mode is SyncMode.POLLING

    def _contact_key(self, tx: Transaction, user_id: str) -> str:
        """The contact's id as stored, by any spelling of any id it is or was known by."""
        key = contacts.find(tx, self._spellings(user_id))
        if key is None:
            raise UnknownContactError(UNKNOWN)
        return key

    def _spellings(self, user_id: str) -> Sequence[str]:
        """An id as it was given, then as it is kept."""
        spellings = [user_id]
        with suppress(NoIdentityError):
            spellings.append(whatsapp_id(user_id, self.connection.default_region))
        return spellings


UNKNOWN = "there is no such contact"


def _shown(moment: datetime | None) -> str | None:
    return None if moment is None else instants.to_text(moment)


def _seconds(now: datetime, since: datetime | None) -> float | None:
    return None if since is None else round((now - since).total_seconds(), 1)


def _failure(run: state.RunRow) -> dict[str, Any]:
    return {"step": run.step, "at": _shown(run.finished_at), "reason": run.error}


def _run(run: state.RunRow) -> dict[str, Any]:
    return {
        "state": run.state,
        "startedAt": _shown(run.started_at),
        "finishedAt": _shown(run.finished_at),
        "counts": run.counts,
        "apiCalls": run.api_calls,
        "error": run.error,
    }
