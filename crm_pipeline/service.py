"""ExternalCrmService: the programmatic face of the sync, and its hooks."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.engine import Engine

from crm_pipeline import instants
from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import ConnectorError, Window
from crm_pipeline.settings import PushMode, Settings, SettingsError, SyncMode, load_settings
from crm_pipeline.store import contacts, health, landing, ledger, links, migrate, rejects, state
from crm_pipeline.store.engine import open_database, reading, writing
from crm_pipeline.sync import apply, pull, push, resolve
from crm_pipeline.sync.context import Context, Progress, lease_held, no_progress
from crm_pipeline.sync.errors import (
    DisabledError,
    OutdatedDatabaseError,
    PushFailedError,
    SyncError,
    UnknownContactError,
)
from crm_pipeline.sync.health import Health, read_health
from crm_pipeline.sync.hooks import HookedMapping
from crm_pipeline.sync.identity import NoIdentityError, whatsapp_id
from crm_pipeline.sync.mapping import FieldMapping, Translator
from crm_pipeline.sync.merge import Side
from crm_pipeline.sync.reports import Counts, Report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crm_pipeline.connectors.base import Connector

LEASE_WAIT_SECONDS = 90.0
"""Longer than a lease lives: a worker that died elsewhere is outwaited."""


class ExternalCrmService:
    """Two-way contact sync between a database and one CRM.

    Subclass it and name the subclass in ``EXTERNAL_CRM_SERVICE`` to change the mapping;
    runs, sensors and commands then use it.
    """

    def __init__(
        self, database: str | Engine | None = None, *, settings: Settings | None = None, run_id: str = ""
    ) -> None:
        """Open lazily: nothing is connected before it is used.

        Args:
            database: SQLAlchemy URL or engine; the settings' ``DATABASE_URL`` when not given.
            settings: environment and ``.env`` when not given.
            run_id: name of the run in history and logs; a new one when empty.
        """
        self.settings = settings or load_settings()
        self.run_id = run_id or uuid.uuid4().hex
        self._database = database if database is not None else self.settings.database_url

    # The guide's methods.

    def poll_external_crm(self) -> dict[str, Any]:
        """Pull what changed and apply it.

        Raises:
            ConnectorError: the CRM could not be read.
            SyncError: switched off, or another run is at work.
        """
        _, applied = self.sync(push=False)
        return {
            "success": True,
            "syncedRecords": applied.counts.seen,
            "userIds": applied.contact_ids,
            "runId": self.run_id,
            "counts": applied.counts.as_dict(),
        }

    def push_to_external_crm(self, user_id: str) -> dict[str, Any]:
        """Write one contact to the CRM now.

        Raises:
            UnknownContactError: there is no such contact.
            PushFailedError: the CRM did not take it.
            ConnectorError: the CRM could not be reached.
        """
        with self._leased("push") as context:
            key = self._contact_key(context, user_id)
            report = self._recorded(context, "push", lambda: push.push_changed(context, only=key))
            external_id, reasons = self._pushed(context, key)
        if report.counts.rejected or report.pending or external_id is None:
            raise PushFailedError("; ".join(reasons.values()) or "the contact was not written to the CRM")
        return {
            "success": True,
            "userId": key,
            "message": "User pushed to external CRM successfully",
            "externalId": external_id,
            "action": _action(report.counts),
        }

    def start_polling(self) -> None:
        """Switch the polling schedule on, until it is switched off."""
        self._set_polling(on=True)

    def stop_polling(self) -> None:
        """Switch the polling schedule off, until it is switched on."""
        self._set_polling(on=False)

    def get_status(self) -> dict[str, Any]:
        """How the sync stands. No secrets, no personal data."""
        with reading(self.engine) as tx:
            known = state.load(tx, self.connection.name)
            runs = {
                step: state.latest_run(tx, self.connection.name, step) for step in ("pull", "apply", "push")
            }
            failed = [state.latest_run(tx, self.connection.name, step, "failed") for step in runs]
            done = [state.latest_run(tx, self.connection.name, step, "done") for step in runs]
            waiting = landing.count_waiting(tx, self.connection.name)
            rejected = rejects.count(tx, self.connection.name)
            to_push = contacts.count_to_push(tx, self.connection.name, instants.now())
            held = ledger.count_open(tx, self.connection.name)
            total = contacts.count(tx)
        last_error = max((run for run in failed if run), key=lambda run: run.started_at, default=None)
        last_success = max((run.finished_at for run in done if run and run.finished_at), default=None)
        return {
            "enabled": self.settings.external_crm_enabled,
            "mode": self.settings.external_crm_sync_mode.value,
            "polling": "active" if self.polling else "inactive",
            "configured": bool(self.connection.base_url),
            "connection": self.connection.name,
            "type": self.connection.type.value,
            "push": self.settings.external_crm_push.value,
            "contacts": total,
            "lastSuccess": _shown(last_success),
            "lastError": None
            if last_error is None
            else {"step": last_error.step, "at": _shown(last_error.finished_at), "reason": last_error.error},
            "watermark": _shown(known.watermark if known else None),
            "backlog": waiting,
            "rejected": sum(rejected.values()),
            "conflicts": held,
            "pendingPushes": to_push,
            "runs": {step: None if run is None else _run(run) for step, run in runs.items()},
        }

    # The hooks.

    def map_external_to_internal(self, record: Any) -> Mapping[str, Any] | None:
        """Contact fields of a CRM record, under column names; None leaves the record out.

        Absent fields are left alone, None clears. Raise ``RecordRejected`` to reject it.
        """
        return self.mapping.to_contact(record)

    def map_internal_to_external(self, contact: dict[str, Any]) -> Mapping[str, Any]:
        """The CRM record's fields for a contact (canonical values under column names)."""
        return self.mapping.to_external(contact, list(contact), {}, None)

    # The steps, as Dagster and the command line call them.

    def pull(
        self, since: datetime | None = None, until: datetime | None = None, progress: Progress = no_progress
    ) -> Report:
        """Land what changed since the last pull; or with a window, land that window again."""
        with self._leased("pull") as context:
            return self._pull(context, since, until, progress)

    def remap(self, since: datetime | None = None, until: datetime | None = None) -> int:
        """Let what had landed in a window be applied again; how many records. No CRM call."""
        with self._leased("remap") as context, context.write() as tx:
            return landing.wait_again(tx, context.name, since=since, until=until)

    def apply(self, progress: Progress = no_progress, *, allow_deletes: bool = False) -> Report:
        """Turn landed records into contacts.

        Raises:
            TooManyDeletesError: more would be archived than one run may, unless ``allow_deletes``.
        """
        with self._leased("apply") as context:
            return self._apply(context, progress, allow_deletes=allow_deletes)

    def push(self, progress: Progress = no_progress) -> Report:
        """Write changed contacts to the CRM."""
        with self._leased("push") as context:
            return self._push(context, progress)

    def sync(self, *, push: bool = True, progress: Progress = no_progress) -> list[Report]:
        """Pull, apply and, unless told or set otherwise, push; as one worker."""
        with self._leased("sync") as context:
            reports = [self._pull(context, None, None, progress), self._apply(context, progress)]
            if push and self.settings.external_crm_push is not PushMode.OFF:
                reports.append(self._push(context, progress, just_pulled=True))
            return reports

    # What sensors, checks and commands ask.

    @property
    def polling(self) -> bool:
        """Whether the polling schedule may run: the flag in the database, or its start value."""
        with reading(self.engine) as tx:
            known = state.load(tx, self.connection.name)
        return known.polling if known is not None else self._polling_at_start

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

    def health(self) -> Health:
        """A summary of the data's state, for checks: figures over whole tables."""
        with reading(self.engine) as tx:
            return read_health(tx, self.connection)

    def records_by_day(self, since: datetime, until: datetime) -> dict[str, int]:
        """How many landed records, as last read, were modified on which day (UTC) of a window."""
        with reading(self.engine) as tx:
            return health.records_by_day(tx, self.connection.name, since, until)

    def changes_pending(self) -> int:
        """How many contacts the CRM should hear of now."""
        with reading(self.engine) as tx:
            return contacts.count_to_push(tx, self.connection.name, instants.now())

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
        return {"reject": found[0], "payload": payload}

    def replay(self, ids: Collection[int] | None = None) -> int:
        """Try rejected records again at once, and let rejected pushes go with the next push.

        A record that has come in again since is applied as it is now, never as it was.
        """
        with self._leased("replay") as context:
            with context.write() as tx:
                chosen = rejects.load(tx, context.name, ids)
                records = [reject.record_id for reject in chosen if reject.record_id is not None]
                landing.wait_again(tx, context.name, ids=records)
                pushes = [reject for reject in chosen if reject.source == "push"]
                contacts.mark_to_push(tx, [reject.key for reject in pushes])
                rejects.due_now(tx, context.name, [reject.id for reject in pushes])
            self._apply(context, no_progress)
        return len(chosen)

    def conflicts(self, limit: int | None = None) -> list[ledger.OpenConflict]:
        """Fields that wait for a person, oldest first."""
        with reading(self.engine) as tx:
            return ledger.open_conflicts(tx, self.connection.name, limit)

    def resolve_conflict(self, conflict_id: int, winner: Side) -> None:
        """Settle a field for one side; the other hears of it with the next push.

        Raises:
            UnknownConflictError: there is no such open conflict.
        """
        with self._leased("resolve") as context:
            resolve.resolve(context, conflict_id, winner)

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

    @cached_property
    def mapping(self) -> FieldMapping:
        """The compiled field rules."""
        return FieldMapping(self.connection)

    @cached_property
    def connector(self) -> Connector:
        """The CRM, connected when first used."""
        from crm_pipeline.connectors import connect  # noqa: PLC0415 - requests is slow to import

        key = self.settings.external_crm_api_key
        return connect(self.connection, key.get_secret_value() if key is not None else None)

    def close(self) -> None:
        """Give the connections back."""
        if "connector" in self.__dict__:
            self.connector.close()
        if "engine" in self.__dict__ and isinstance(self._database, str):
            self.engine.dispose()

    def __enter__(self) -> Self:
        """Use it as a context manager."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close."""
        self.close()

    # Inside.

    @property
    def _polling_at_start(self) -> bool:
        return self.settings.external_crm_sync_mode is SyncMode.POLLING

    @contextmanager
    def _leased(self, doing: str) -> Iterator[Context]:
        if not self.settings.external_crm_enabled:
            raise DisabledError(f"cannot {doing}: EXTERNAL_CRM_ENABLED is false")
        context = Context(
            engine=self.engine,
            connection=self.connection,
            connector=self.connector,
            mapping=self.mapping,
            translator=self._translator(),
            run_id=self.run_id,
            clock=instants.now,
        )
        with lease_held(context, LEASE_WAIT_SECONDS):
            with context.write() as tx:
                state.ensure(tx, context.name, polling=self._polling_at_start)
            yield context

    def _translator(self) -> Translator:
        kind = type(self)
        same_in = kind.map_external_to_internal is ExternalCrmService.map_external_to_internal
        same_out = kind.map_internal_to_external is ExternalCrmService.map_internal_to_external
        if same_in and same_out:
            return self.mapping
        return HookedMapping(self.mapping, self.map_external_to_internal, self.map_internal_to_external)

    def _pull(
        self, context: Context, since: datetime | None, until: datetime | None, progress: Progress
    ) -> Report:
        if since is None and until is None:
            return self._recorded(context, "pull", lambda: pull.pull_new(context, progress))
        window = Window(since, until)
        return self._recorded(context, "pull", lambda: pull.pull_window(context, window, progress))

    def _apply(self, context: Context, progress: Progress, *, allow_deletes: bool = False) -> Report:
        return self._recorded(
            context, "apply", lambda: apply.apply_landed(context, progress, allow_deletes=allow_deletes)
        )

    def _push(self, context: Context, progress: Progress, *, just_pulled: bool = False) -> Report:
        if self.settings.external_crm_push is PushMode.OFF:
            msg = "cannot push: EXTERNAL_CRM_PUSH is off"
            raise DisabledError(msg)
        return self._recorded(
            context, "push", lambda: push.push_changed(context, progress, just_pulled=just_pulled)
        )

    def _recorded(self, context: Context, step: str, work: Callable[[], Report]) -> Report:
        """Keep a row of every step: what it did, or why it failed."""
        calls = context.connector.calls
        with context.write() as tx:
            row = state.start_run(tx, context.name, step, self.run_id, context.clock())
        try:
            report = work()
        except BaseException as error:
            # Texts of our own errors are safe to keep and show; a stranger's may quote a contact.
            told = str(error) if isinstance(error, ConnectorError | SyncError) else type(error).__name__
            with writing(self.engine) as tx:
                made = context.connector.calls - calls
                state.finish_run(tx, row, context.clock(), state="failed", error=told, api_calls=made)
            raise
        with writing(self.engine) as tx:
            counts = {**report.counts.as_dict(), "conflicts": report.conflicts, "pending": report.pending}
            state.finish_run(
                tx, row, context.clock(), state="done", counts=counts, api_calls=report.api_calls
            )
        return report

    def _set_polling(self, *, on: bool) -> None:
        with writing(self.engine) as tx:
            state.ensure(tx, self.connection.name, polling=on)
            state.save(tx, self.connection.name, polling=on)

    def _contact_key(self, context: Context, user_id: str) -> str:
        """The contact's id as stored, by any spelling of it."""
        spellings = [user_id]
        with suppress(NoIdentityError):
            spellings.append(whatsapp_id(user_id, self.connection.default_region))
        with context.read() as tx:
            found = contacts.load(tx, spellings) or contacts.load(
                tx, contacts.resolve(tx, spellings).values()
            )
        if not found:
            msg = "there is no such contact"
            raise UnknownContactError(msg)
        return next(iter(found))

    def _pushed(self, context: Context, key: str) -> tuple[str | None, dict[str, str]]:
        with context.read() as tx:
            linked = links.load_by_contact(tx, context.name, [key])
            reasons = rejects.reasons(tx, context.name, "push", key)
        return (linked[0].external_id if linked else None), reasons


def service_from_settings(
    settings: Settings, run_id: str = "", database: str | Engine | None = None
) -> ExternalCrmService:
    """The service ``EXTERNAL_CRM_SERVICE`` names, or the plain one.

    Raises:
        SettingsError: the class cannot be imported, or is no ``ExternalCrmService``.
    """
    if settings.external_crm_service is None:
        return ExternalCrmService(database, settings=settings, run_id=run_id)
    module_name, class_name = settings.external_crm_service.split(":")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        msg = (
            f"EXTERNAL_CRM_SERVICE names {settings.external_crm_service}, which cannot be imported ({error})"
        )
        raise SettingsError(msg) from error
    if not (isinstance(kind, type) and issubclass(kind, ExternalCrmService)):
        msg = f"EXTERNAL_CRM_SERVICE names {settings.external_crm_service}, which is no ExternalCrmService"
        raise SettingsError(msg)
    return kind(database, settings=settings, run_id=run_id)


def _action(counts: Counts) -> str:
    return "created" if counts.created else "updated" if counts.updated else "unchanged"


def _shown(moment: datetime | None) -> str | None:
    return None if moment is None else instants.to_text(moment)


def _run(run: state.RunRow) -> dict[str, Any]:
    return {
        "state": run.state,
        "startedAt": _shown(run.started_at),
        "finishedAt": _shown(run.finished_at),
        "counts": run.counts,
        "apiCalls": run.api_calls,
        "error": run.error,
    }
