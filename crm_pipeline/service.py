"""ExternalCrmService: the programmatic face of the sync, and its hooks."""

from __future__ import annotations

import importlib
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from crm_pipeline import instants, jsonio, logs
from crm_pipeline.connectors.base import ConnectorError, Window
from crm_pipeline.garbage import collected_rarely
from crm_pipeline.settings import PushMode, Settings, SettingsError, load_settings
from crm_pipeline.status import UNKNOWN, StatusReader
from crm_pipeline.store import contacts, landing, ledger, links, rejects, retention, state, totals, webhooks
from crm_pipeline.store.engine import writing
from crm_pipeline.store.rejects import NewReject
from crm_pipeline.sync import backfill, events, forget, pull, push, resolve
from crm_pipeline.sync.budget import SharedBudget, interactive, sharing
from crm_pipeline.sync.calls import CallFigures
from crm_pipeline.sync.checkup import Finding, Grade, look_at_channel, look_at_crm, look_at_database
from crm_pipeline.sync.coerce import same
from crm_pipeline.sync.context import Context, Progress, lease_held, no_progress
from crm_pipeline.sync.errors import (
    DisabledError,
    PushFailedError,
    RecordRejected,
    SyncError,
    UnknownContactError,
)
from crm_pipeline.sync.hooks import HookedMapping
from crm_pipeline.sync.mapping import FieldMapping, Translator
from crm_pipeline.sync.meanwhile import Meanwhile
from crm_pipeline.sync.merge import Side
from crm_pipeline.sync.preview import Preview, preview
from crm_pipeline.sync.reception import Arrival, Receipt, Reception
from crm_pipeline.sync.reports import Counts, Report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crm_pipeline.connectors.base import Connector
    from crm_pipeline.sync.evidence import Evidence, Part
    from crm_pipeline.sync.parity import ReconcileReport
    from crm_pipeline.sync.tokens import StoredTokens
    from crm_pipeline.sync.watch import Watch, Watcher

_Told = TypeVar("_Told", Report, "ReconcileReport")

LEASE_WAIT_SECONDS = 90.0
"""Longer than a lease lives: a worker that died elsewhere is outwaited."""


class ExternalCrmService(StatusReader):
    """Two-way contact sync between a database and one CRM; it answers what a ``StatusReader`` does, too.

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
        settings = settings or load_settings()
        super().__init__(database if database is not None else settings.database_url, settings)
        self.run_id = run_id or uuid.uuid4().hex
        self._calls = CallFigures()

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
            PushFailedError: the CRM did not take it, or nothing was written although something differs.
            ConnectorError: the CRM could not be reached.
            DisabledError: pushing is switched off.
        """
        with self._leased("push") as context, interactive(self._budget):
            with context.read() as tx:
                key = self._contact_key(tx, user_id)
                stored = contacts.load(tx, [key], lock=False)[key]
            report = self._push(context, no_progress, only=key)
            external_id, reasons = self._pushed(context, key, report)
        counts = report.counts
        refused = counts.rejected + counts.skipped > 0 or (counts.unchanged > 0 and reasons != {})
        if refused or report.pending or external_id is None:
            raise PushFailedError(reasons, refused=refused)
        edited = stored.row_version != stored.pushed_version
        answer = {
            "success": True,
            "userId": key,
            # Nobody is told that an edit was pushed which the CRM's own has won over.
            "message": _NOTHING_TO_PUSH if edited and not counts.changed else _PUSHED,
            "externalId": external_id,
            "action": _action(counts),
        }
        return answer | ({"reasons": reasons} if reasons else {})

    def process_webhook(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Land a webhook's object and apply it; the answer of the HTTP API.

        The HTTP API calls it, too, with the secret checked and removed; there it lands, and
        is applied as ``WEBHOOK_APPLY`` says. Override it to change the payload first.

        Raises:
            RecordRejected: it cannot become a contact; an object is kept as rejected.
            ConnectorError: it has landed, and waits for a CRM that cannot be asked for what it names.
            DisabledError: switched off.
        """
        taken = _through_the_api.get()
        if taken is not None:
            taken.receipt = taken.land(taken.arrival._replace(payload=payload))
            return _answer(taken.receipt)
        if not isinstance(payload, dict):
            raise RecordRejected({"record": "is not an object"})
        payload = {name: value for name, value in payload.items() if name != "secret"}
        receipt = self._land([Arrival(payload, None, self.run_id)])[0]
        if receipt.action == "rejected":
            raise RecordRejected(dict(receipt.reasons))
        self.apply_events()
        return _answer(receipt._replace(status="applied"))

    def start_polling(self) -> None:
        """Switch the polling schedule on, until it is switched off."""
        self._set_polling(on=True)

    def stop_polling(self) -> None:
        """Switch the polling schedule off, until it is switched on."""
        self._set_polling(on=False)

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

    def receive(self, arrivals: Sequence[Arrival]) -> list[Receipt]:
        """Land webhooks, all in one transaction; durable when it returns.

        Raises:
            DisabledError: switched off.
        """
        if type(self).process_webhook is ExternalCrmService.process_webhook:
            return self._land(arrivals)
        return [self._through_hook(arrival, lambda each: self._land([each])[0]) for arrival in arrivals]

    def apply_events(
        self, progress: Progress = no_progress, *, wait_seconds: float = LEASE_WAIT_SECONDS
    ) -> Report:
        """Apply webhooks that have landed.

        Raises:
            BusyError: another run works the connection all the time that may be waited.
            ConnectorError: the CRM cannot be asked for what some of them name; these wait.
            TooManyDeletesError: more contacts would be archived than one run may; these wait.
        """
        with self._leased("apply", wait_seconds) as context:
            return self._recorded(context, "apply", lambda: events.apply_events(context, progress))

    def push(self, progress: Progress = no_progress) -> Report:
        """Write changed contacts to the CRM."""
        with self._leased("push") as context:
            return self._push(context, progress)

    def sync(
        self, *, push: bool = True, progress: Progress = no_progress, allow_deletes: bool = False
    ) -> list[Report]:
        """Pull, apply and, unless told or set otherwise, push; as one worker.

        Raises:
            TooManyDeletesError: more would be archived than one run may, unless ``allow_deletes``.
        """
        with self._leased("sync") as context:
            reports = self._pull_and_apply(context, progress, allow_deletes=allow_deletes)
            if push and self.settings.external_crm_push is not PushMode.OFF:
                just_pulled = not reports[0].resumed
                reports.append(self._push(context, progress, just_pulled=just_pulled))
            return reports

    def prune(self) -> dict[str, int]:
        """Remove what is older than the connection's ``retention`` allows; rows by table."""
        rules, now = self.connection.retention, instants.now()
        with self._leased("prune") as context, context.write() as tx:
            return retention.prune(
                tx,
                context.name,
                landed=now - timedelta(days=rules.landed_days),
                history=now - timedelta(days=rules.history_days),
                runs=now - timedelta(days=rules.runs_days),
            )

    def reconcile(self, *, repair: bool = False, progress: Progress = no_progress) -> ReconcileReport:
        """Compare both sides whole; ``repair``: let the sync settle what differs silently.

        What the CRM has to hear of afterwards goes with the next push. Deletes that are too many
        for one run are left waiting; the report's note says so.

        Raises:
            ConnectorError: the CRM could not be read to the end.
        """
        from crm_pipeline.sync.reconcile import PATIENCE, reconcile  # noqa: PLC0415 - pandas, used only here

        patience = max(PATIENCE, 2 * timedelta(minutes=self.settings.external_crm_sync_interval))
        with self._leased("reconcile") as context:
            return self._recorded(
                context,
                "reconcile",
                lambda: reconcile(context, repair=repair, patience=patience, progress=progress),
            )

    # The channel that a CRM tells of changes through, where it must be asked for one.

    def watch_due(self, now: datetime) -> bool:
        """Whether the notification channel must be made or renewed. No CRM call.

        Raises:
            ConnectorSetupError: there is no secret to make it with.
        """
        return self._watch().due(now)

    def renew_watch(self) -> datetime:
        """Make or renew the notification channel of ``webhook.public_url``; when it ends.

        Raises:
            ConnectorError: it is not set up, or the CRM does not take it.
            DisabledError: switched off.
        """
        if not self.settings.external_crm_enabled:
            raise DisabledError("cannot watch: EXTERNAL_CRM_ENABLED is false")
        return self._watch().renew(lambda: cast("Watcher", self.connector), instants.now)

    # What helps to set it up.

    def doctor(self) -> list[Finding]:
        """Look at everything a sync needs: settings, database, CRM, its fields against the mapping."""
        found = [
            Finding("settings", Grade.GOOD, "read")
            if self.settings.external_crm_enabled
            else Finding("settings", Grade.DOUBTFUL, "switched off", "set EXTERNAL_CRM_ENABLED=true"),
            look_at_database(self.engine),
        ]
        if not self.connection.base_url:
            return [*found, Finding("CRM", Grade.BAD, "no URL is set", "set EXTERNAL_CRM_API_URL")]
        writes = self.settings.external_crm_push is not PushMode.OFF
        looked = look_at_crm(self.connection, self.mapping, self._connected, self._budget, writes=writes)
        token = bool(self.settings.external_crm_webhook_secret)
        channel = look_at_channel(self.engine, self.connection, instants.now(), has_token=token)
        return [*found, *looked, *channel]

    def preview(self, record: Any) -> Preview:
        """What the mapping makes of one record, and why."""
        return preview(self.mapping, self._translator(), record)

    def _watch(self) -> Watch:
        from crm_pipeline.sync.watch import Watch  # noqa: PLC0415 - requests is slow to import

        secrets = self.settings.external_crm_webhook_secret
        return Watch(self.engine, self.connection, tuple(each.get_secret_value() for each in secrets))

    def _connected(self) -> Connector:
        return self.connector

    # What a person decides.

    def replay(self, ids: Collection[int] | None = None) -> int:
        """Try rejected records again at once, and let rejected pushes go with the next push.

        A record that has come in again since is applied as it is now, never as it was.
        """
        with self._leased("replay") as context:
            with context.write() as tx:
                chosen = rejects.load(tx, context.name, ids)
                records = [reject.record_id for reject in chosen if reject.record_id is not None]
                landing.wait_again(tx, context.name, ids=records)
                heard = [reject for reject in chosen if reject.source == "webhook"]
                hooked = [reject.key for reject in heard if _HOOK in reject.reasons]
                again = [reject.key for reject in heard if _HOOK not in reject.reasons]
                webhooks.wait_again(tx, context.name, again)
                pushes = [reject for reject in chosen if reject.source == "push"]
                contacts.mark_to_push(tx, [reject.key for reject in pushes])
                rejects.due_now(tx, context.name, [reject.id for reject in pushes])
            self._hook_again(context, hooked)
            self._apply(context, no_progress)
        return len(chosen)

    def dismiss(self, ids: Collection[int]) -> int:
        """Forget rejects that nobody needs; how many there were.

        What they are about is tried as usual when it changes; what fails again is listed again.
        """
        with self._leased("dismiss") as context, context.write() as tx:
            return rejects.dismiss(tx, context.name, ids, context.clock())

    def forget(self, user_id: str) -> int:
        """Remove everything that is kept of a person, and let no sync bring it back; how many rows.

        The record in the CRM stays. Who is put into ``contacts`` again is known again.

        Args:
            user_id: any spelling of any id the person is or was known by.

        Raises:
            UnknownContactError: nothing is kept of anybody with this id.
        """
        with self._leased("forget") as context:
            with context.read() as tx:
                key = contacts.find(tx, self._spellings(user_id))
            known = {*self._spellings(user_id), *(self._spellings(key) if key is not None else ())}
            removed = forget.forget(context, known)
        if not removed:
            raise UnknownContactError(UNKNOWN)
        return removed

    def resolve_conflict(self, conflict_id: int, winner: Side) -> None:
        """Settle a field for one side; the other hears of it with the next push.

        Raises:
            UnknownConflictError: there is no such open conflict.
        """
        with self._leased("resolve") as context:
            resolve.resolve(context, conflict_id, winner)

    # What checks and alerts judge.

    def evidence(self, part: Part | None = None, *, look: bool = True) -> Evidence:
        """Figures of how the sync stands, all or those of one asset's checks.

        Without ``look`` nothing is written: no further records are looked at.
        """
        from crm_pipeline.sync.evidence import Witness  # noqa: PLC0415 - for checks and alerts only

        witness = Witness(self.engine, self.connection, self.mapping, self._translator(), look)
        interval = timedelta(minutes=self.settings.external_crm_sync_interval)
        return witness.gather(instants.now(), interval, part, polling=self.polling)

    # Lifetime.

    @cached_property
    def mapping(self) -> FieldMapping:
        """The compiled field rules."""
        return FieldMapping(self.connection)

    @cached_property
    def connector(self) -> Connector:
        """The CRM, connected when first used.

        Raises:
            ConnectorSetupError: the settings do not say how to reach it.
        """
        from crm_pipeline.connectors import connect  # noqa: PLC0415 - requests is slow to import

        key = self.settings.external_crm_api_key
        return connect(
            self.connection,
            key.get_secret_value() if key is not None else None,
            tokens=self._tokens(),
            budget=self._budget,
            observe=self._calls.note,
        )

    @cached_property
    def _budget(self) -> SharedBudget | None:
        """The account's budget, where its connection has one."""
        bounded = self.connection.budget
        if bounded.calls is None and bounded.daily_calls is None:
            return None
        return SharedBudget(self.engine, self.connection.name, bounded)

    def _tokens(self) -> StoredTokens | None:
        """Where access tokens are shared; without a key to seal them each process has its own."""
        key = self.settings.external_crm_token_key
        if key is None or self.connection.auth.oauth is None:
            return None
        from crm_pipeline.sync.tokens import StoredTokens  # noqa: PLC0415 - requests is slow to import

        return StoredTokens(
            self.engine, self.connection.name, self.connection.auth.oauth, key.get_secret_value()
        )

    def close(self) -> None:
        """Give the connections back."""
        if "connector" in self.__dict__:
            self.connector.close()
        super().close()

    # Inside.

    @contextmanager
    def _leased(self, doing: str, wait_seconds: float = LEASE_WAIT_SECONDS) -> Iterator[Context]:
        if not self.settings.external_crm_enabled:
            raise DisabledError(f"cannot {doing}: EXTERNAL_CRM_ENABLED is false")
        context = Context(
            engine=self.engine,
            connection=self.connection,
            connect=lambda: self.connector,
            mapping=self.mapping,
            translator=self._translator(),
            run_id=self.run_id,
            clock=instants.now,
        )
        with lease_held(context, wait_seconds), collected_rarely():
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
        with sharing(self._budget, self.connection.budget.backfill_share):
            return self._recorded(context, "pull", lambda: backfill.pull_window(context, window, progress))

    def _pull_and_apply(self, context: Context, progress: Progress, *, allow_deletes: bool) -> list[Report]:
        """Both steps; what lands is applied while the CRM makes its next page."""
        meanwhile = Meanwhile(context)
        begun = meanwhile.report

        def read() -> Report:
            pulled = pull.pull_new(context, progress, meanwhile.land)
            pulled.duration_seconds -= begun.duration_seconds
            return pulled

        try:
            pulled = self._recorded(context, "pull", read)
        except ConnectorError:
            if begun.counts.seen:
                self._recorded(context, "apply", lambda: begun)
            raise
        return [pulled, self._apply(context, progress, allow_deletes=allow_deletes, begun=begun)]

    def _apply(
        self,
        context: Context,
        progress: Progress,
        *,
        allow_deletes: bool = False,
        begun: Report | None = None,
    ) -> Report:
        return self._recorded(
            context,
            "apply",
            lambda: events.apply_all(context, progress, allow_deletes=allow_deletes, begun=begun),
        )

    def _land(self, arrivals: Sequence[Arrival]) -> list[Receipt]:
        if not self.settings.external_crm_enabled:
            msg = "cannot receive: EXTERNAL_CRM_ENABLED is false"
            raise DisabledError(msg)
        reception = Reception(self.engine, self.connection, self.mapping, self._translator(), instants.now)
        return reception.receive(arrivals)

    def _through_hook(self, arrival: Arrival, land: Callable[[Arrival], Receipt]) -> Receipt:
        """Let a subclass change the payload. Whatever it does, the event lands.

        What it refuses or fails at is rejected, and what it swallows is skipped.
        """
        taken = _Taken(arrival, land)
        token = _through_the_api.set(taken)
        try:
            self.process_webhook(arrival.payload)
        except (SQLAlchemyError, SyncError):
            raise  # it could not land
        except Exception as error:
            if taken.receipt is not None:
                raise
            # Only the kind of a stranger's error is told: its text may quote a contact.
            rejected = isinstance(error, RecordRejected)
            told = "refused it" if rejected else f"failed ({type(error).__name__})"
            reasons = {**(error.reasons if isinstance(error, RecordRejected) else {}), _HOOK: told}
            return land(arrival._replace(refused=reasons))
        finally:
            _through_the_api.reset(token)
        return taken.receipt or land(arrival._replace(ours=False))

    def _hook_again(self, context: Context, event_ids: Sequence[str]) -> None:
        """What a subclass's ``process_webhook`` did not let through, is put before it once more."""
        for event_id in event_ids:
            with context.read() as tx:
                text = webhooks.payload(tx, context.name, event_id)
            if text is not None:
                arrival = Arrival(jsonio.loads(text), event_id, self.run_id)
                self._through_hook(arrival, lambda each: self._land_again(context, each))

    def _land_again(self, context: Context, arrival: Arrival) -> Receipt:
        """Let an event that was rejected wait with what it says now, or end again."""
        event_id = arrival.event_id or ""
        outcome = "rejected" if arrival.refused else None if arrival.ours else "skipped"
        text = jsonio.dumps(arrival.payload)
        with context.write() as tx:
            webhooks.restore(tx, context.name, event_id, text, jsonio.content_hash(text), outcome)
            if arrival.refused:
                again = NewReject("webhook", event_id, dict(arrival.refused))
                rejects.write(tx, context.name, [again], self.run_id, context.clock())
            elif not arrival.ours:
                rejects.clear(tx, context.name, "webhook", [event_id])
        return Receipt(event_id, None, "rejected" if arrival.refused else "skipped", "landed")

    def _push(
        self, context: Context, progress: Progress, *, only: str | None = None, just_pulled: bool = False
    ) -> Report:
        if self.settings.external_crm_push is PushMode.OFF:
            msg = "cannot push: EXTERNAL_CRM_PUSH is off"
            raise DisabledError(msg)
        return self._recorded(
            context, "push", lambda: push.push_changed(context, progress, only=only, just_pulled=just_pulled)
        )

    def _recorded(self, context: Context, step: str, work: Callable[[], _Told]) -> _Told:
        """Keep a row of every step: what it did, or why it failed."""
        calls, began = context.calls, time.monotonic()
        with context.write() as tx:
            row = state.start_run(tx, context.name, step, self.run_id, context.clock())
        try:
            report = work()
        except BaseException as error:
            # Texts of our own errors are safe to keep and show; a stranger's may quote a contact.
            told = str(error) if isinstance(error, ConnectorError | SyncError) else type(error).__name__
            with writing(self.engine) as tx:
                made = context.calls - calls
                state.finish_run(tx, row, context.clock(), state="failed", error=told, api_calls=made)
                figures = self._calls.take() | {"runs_failed": 1, "seconds": time.monotonic() - began}
                totals.add(tx, context.name, step, figures)
            logs.step(step, self.run_id, "failed", api_calls=made)
            raise
        with writing(self.engine) as tx:
            now, counts = context.clock(), report.figures()
            state.finish_run(tx, row, now, state="done", counts=counts, api_calls=report.api_calls)
            figures = self._calls.take() | {"runs_done": 1, "seconds": report.duration_seconds}
            totals.add(tx, context.name, step, counts | figures)
        logs.step(step, self.run_id, "done", api_calls=report.api_calls, **counts)
        return report

    def _set_polling(self, *, on: bool) -> None:
        with writing(self.engine) as tx:
            state.ensure(tx, self.connection.name, polling=on)
            state.save(tx, self.connection.name, polling=on)

    def _pushed(self, context: Context, key: str, report: Report) -> tuple[str | None, dict[str, str]]:
        """The contact's record after a push, and why not all that it holds was written."""
        with context.read() as tx:
            linked = links.load_by_contact(tx, context.name, [key])
            reasons = rejects.reasons(tx, context.name, "push", key)
            held = ledger.open_fields(tx, context.name, [key]).get(key, {})
        if report.left_out:
            reasons = {"record": "; ".join(sorted(report.left_out))}
        elif linked and not reasons:
            unwritten = dict.fromkeys(linked[0].edits, _NOT_WRITTEN)
            waiting = {name: _WAITS for name, each in held.items() if not same(each.internal, each.external)}
            fields = self.mapping.fields
            reasons = {
                fields[name].json_name: why for name, why in (unwritten | waiting).items() if name in fields
            }
        return (linked[0].external_id if linked else None), reasons


@dataclass(slots=True)
class _Taken:
    """An arrival of the HTTP API on its way through a subclass's ``process_webhook``."""

    arrival: Arrival
    land: Callable[[Arrival], Receipt]
    receipt: Receipt | None = None


_PUSHED = "User pushed to external CRM successfully"
_NOTHING_TO_PUSH = "Nothing to push: the CRM has the same values"
_WAITS = "waits for a person to settle a conflict"
_NOT_WRITTEN = "is not written to the CRM"
_HOOK = "process_webhook"
"""Among the reasons of an event that the hook did not let through."""
_through_the_api: ContextVar[_Taken | None] = ContextVar("_through_the_api", default=None)


def _answer(receipt: Receipt) -> dict[str, Any]:
    return {
        "success": receipt.status != "rejected",
        "userId": receipt.user_id,
        "action": receipt.action,
        "eventId": receipt.event_id,
        "status": receipt.status,
    }


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
