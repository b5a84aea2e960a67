"""Webhook events: landed in one short transaction, applied in order of arrival."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, Literal, TypeAlias

from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DataError, IntegrityError

from crm_pipeline import instants, jsonio
from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import ConnectorError
from crm_pipeline.contact import FieldType
from crm_pipeline.store import landing, rejects, webhooks
from crm_pipeline.store.engine import writing
from crm_pipeline.store.rejects import NewReject
from crm_pipeline.store.webhooks import LandedEvent, NewEvent, StoredEvent
from crm_pipeline.sync.absence import ask
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.coerce import NotAValueError, Spec, coercer
from crm_pipeline.sync.context import Clock, Context, Progress, no_progress
from crm_pipeline.sync.errors import RecordRejected, TooManyDeletesError
from crm_pipeline.sync.mapping import FieldMapping, Translator, Values
from crm_pipeline.sync.reports import CONTACT_IDS_KEPT, Outcome, Report
from crm_pipeline.sync.settle import News, Settler
from crm_pipeline.sync.workset import Workset

BATCH = 500
"""Events to a transaction."""
MOST_ATTEMPTS = 5
"""An event that failed, or killed its worker, so often is set aside."""
FIRST_RETRY = timedelta(seconds=30)

Action: TypeAlias = Literal["created", "updated", "unchanged", "skipped", "rejected", "conflict"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A webhook's object, its secret removed."""

    payload: dict[str, Any]
    event_id: str | None
    """The sender's name for the event; the same name is the same event."""
    request_id: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to one arrival. It is durable when it is given."""

    event_id: str
    user_id: str | None
    action: Action
    """What applying it does to the contact as it is now; ``conflict``: the id named another body."""
    status: Literal["landed", "applied", "rejected"]
    duplicate: bool = False
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reception:
    """What receiving needs: it holds no lease and talks to no CRM."""

    engine: Engine
    connection: Connection
    mapping: FieldMapping
    translator: Translator
    clock: Clock

    def receive(self, arrivals: Sequence[Arrival]) -> list[Receipt]:
        """Land arrivals, all in one transaction; one receipt each, in order."""
        read = [self._read(arrival) for arrival in arrivals]
        with writing(self.engine) as tx:
            desk = _Desk(self, tx, read)
            receipts = [desk.take(each) for each in read]
            webhooks.insert(tx, self.connection.name, desk.new)
            rejects.write(tx, self.connection.name, desk.rejects, "", self.clock())
        return receipts

    def _read(self, arrival: Arrival) -> _Read:
        text = jsonio.dumps(arrival.payload)
        values: Values | None = None
        reasons: dict[str, str] = {}
        try:
            values = self.translator.to_contact(arrival.payload)
        except RecordRejected as rejected:
            reasons = rejected.reasons
        identity = (values or {}).get("id")
        return _Read(
            arrival,
            text,
            jsonio.content_hash(text),
            values,
            reasons,
            identity if isinstance(identity, str) else None,
            _record_id(self.connection, arrival.payload),
        )


@dataclass(frozen=True, slots=True)
class _Read:
    """An arrival, understood as far as it can be."""

    arrival: Arrival
    text: str
    digest: str
    values: Values | None
    reasons: dict[str, str]
    identity: str | None
    external_id: str | None


class _Desk:
    """Takes the arrivals of one transaction."""

    def __init__(self, reception: Reception, tx: Transaction, read: Sequence[_Read]) -> None:
        name, self.now = reception.connection.name, reception.clock()
        named = [each.arrival.event_id for each in read if each.arrival.event_id is not None]
        identities = {each.identity for each in read if each.identity is not None}
        self._known = webhooks.by_event_id(tx, name, named)
        self._newest = webhooks.newest_of(tx, name, identities)
        work = Workset(tx, name, reception.mapping)
        work.load([each.external_id for each in read if each.external_id], identities, self.now, lock=False)
        self._settler = Settler(work, reception.mapping, reception.connection, self.now)
        self._read_back = reception.connection.webhook.read_back
        self.new: list[NewEvent] = []
        self.rejects: list[NewReject] = []

    def take(self, read: _Read) -> Receipt:
        """Decide on one arrival."""
        known = self._known.get(read.arrival.event_id or "")
        if known is None and read.arrival.event_id is None and read.identity is not None:
            newest = self._newest.get(read.identity)
            known = newest if newest is not None and newest.content_hash == read.digest else None
        if known is not None:
            return _again(known, read)
        event_id = read.arrival.event_id or uuid.uuid4().hex
        action, reasons = self._action(read)
        self._keep(read, event_id, action, reasons)
        status: Literal["landed", "rejected"] = "rejected" if action == "rejected" else "landed"
        return Receipt(event_id, read.identity, action, status, reasons=reasons)

    def _action(self, read: _Read) -> tuple[Action, dict[str, str]]:
        """What applying it would do now; nothing of it is saved."""
        if self._read_back and read.external_id is not None:
            return "updated", {}
        if read.reasons:
            return "rejected", read.reasons
        if read.values is None:
            return "skipped", {}
        try:
            outcome = hear(self._settler, read.values, read.external_id, self.now, None, None)
        except RecordRejected as rejected:
            return "rejected", rejected.reasons
        return outcome.value, {}

    def _keep(self, read: _Read, event_id: str, action: Action, reasons: dict[str, str]) -> None:
        event = NewEvent(
            event_id,
            read.arrival.request_id,
            self.now,
            read.text,
            read.digest,
            read.identity,
            read.external_id,
            action,
            reasons,
        )
        self.new.append(event)
        stored = StoredEvent(
            event_id, read.digest, read.identity, action, None, reasons, self.now, None, 0, None
        )
        self._known[event_id] = stored
        if read.identity is not None:
            self._newest[read.identity] = stored
        if action == "rejected":
            self.rejects.append(NewReject("webhook", event_id, reasons))


def _again(known: StoredEvent, read: _Read) -> Receipt:
    """The same event answers the same; the same name with another body is a mistake of the sender."""
    if known.content_hash != read.digest:
        return Receipt(known.event_id, read.identity, "conflict", "rejected", duplicate=True)
    status: Literal["landed", "applied", "rejected"] = "landed"
    if known.action == "rejected" or known.outcome == "rejected":
        status = "rejected"
    elif known.outcome is not None:
        status = "applied"
    action: Any = known.action
    return Receipt(
        known.event_id, known.contact_id, action, status, duplicate=True, reasons=known.reasons or {}
    )


def hear(
    settler: Settler,
    values: Values,
    external_id: str | None,
    received_at: datetime,
    modified_at: datetime | None,
    event_id: int | None,
) -> Outcome:
    """Settle what one event says.

    Raises:
        RecordRejected: it cannot be told which contact it is.
    """
    # A record that names no id of its own goes by its contact's, like one that is pulled.
    name = external_id or str(values.get("id", ""))
    news = News(name, modified_at, received_at, event_id=event_id)
    return settler.hear(news, values, names_record=external_id is not None)


def apply_all(context: Context, progress: Progress = no_progress, *, allow_deletes: bool = False) -> Report:
    """Apply everything that waits: records first, then events.

    Raises:
        TooManyDeletesError: more contacts would be archived than one run may; all the rest is applied.
        LeaseLostError: another worker has taken over; what was committed stands.
    """
    try:
        report = apply_landed(context, progress, allow_deletes=allow_deletes)
    except TooManyDeletesError:
        apply_events(context, progress)
        raise
    heard = apply_events(context, progress)
    report.counts.add(heard.counts.by_outcome())
    report.contact_ids = [*report.contact_ids, *heard.contact_ids][:CONTACT_IDS_KEPT]
    report.duration_seconds += heard.duration_seconds
    return report


def apply_events(context: Context, progress: Progress = no_progress) -> Report:
    """Apply every event that waits and is due, oldest first.

    Records that landed are applied before: an event that came earlier than a record was
    read has nothing to add to it.

    Raises:
        LeaseLostError: another worker has taken over; what was committed stands.
    """
    started = time.monotonic()
    report = Report("apply")
    with context.read() as tx:
        total = webhooks.count_waiting(tx, context.name, context.clock())
    while total and _apply_next(context, report):
        progress(report.counts.seen, total)
    report.duration_seconds = time.monotonic() - started
    return report


def _apply_next(context: Context, report: Report) -> bool:
    rows = _begin(context)
    if not rows:
        return False
    exhausted = [row for row in rows if row.attempts >= MOST_ATTEMPTS]
    if exhausted:
        why = {"record": f"gave up after {MOST_ATTEMPTS} attempts that ended without a result"}
        _give_up(context, exhausted, why, report)
        return True
    if context.connection.webhook.read_back and not _read_back(context, rows):
        return True
    try:
        with context.write() as tx:
            done = _apply_rows(context, tx, rows)
    except (IntegrityError, DataError):
        if len(rows) == 1:
            _give_up(context, rows, {"record": "holds a value the database cannot store"}, report)
        return True  # the next attempt takes them one by one
    report.counts.add(done.counts)
    room = CONTACT_IDS_KEPT - len(report.contact_ids)
    report.contact_ids.extend(done.contact_ids[:room])
    return True


def _begin(context: Context) -> list[LandedEvent]:
    """The next events, their attempt counted; one that failed before comes alone."""
    with context.write() as tx:
        rows = webhooks.waiting(tx, context.name, context.clock(), BATCH)
        first = list(takewhile(lambda row: row.attempts == 0, rows)) or rows[:1]
        webhooks.begin_attempt(tx, [row.id for row in first])
    return first


def _read_back(context: Context, rows: Sequence[LandedEvent]) -> bool:
    """Read the records the events name; False when the CRM cannot be asked now."""
    named = list(dict.fromkeys(row.external_id for row in rows if row.external_id is not None))
    try:
        ask(context, named)
    except ConnectorError:
        attempts = max(row.attempts for row in rows)
        with context.write() as tx:
            webhooks.postpone(tx, [row.id for row in rows], context.clock() + FIRST_RETRY * 2**attempts)
        return False
    apply_landed(context)
    return True


class _Done:
    def __init__(self) -> None:
        self.outcomes: list[tuple[int, str]] = []
        self.reasons: list[tuple[int, dict[str, str]]] = []
        self.rejects: list[NewReject] = []
        self.names: list[str] = []
        self.counts: Counter[Outcome] = Counter()
        self.contact_ids: list[str] = []

    def reject(self, row: LandedEvent, reasons: dict[str, str]) -> None:
        self.reasons.append((row.id, reasons))
        self.rejects.append(NewReject("webhook", row.event_id, reasons))
        self.note(row, Outcome.REJECTED)

    def note(self, row: LandedEvent, outcome: Outcome) -> None:
        self.outcomes.append((row.id, outcome.value))
        self.names.append(row.event_id)
        self.counts[outcome] += 1

    def save(self, context: Context, tx: Transaction, now: datetime) -> None:
        webhooks.settle(tx, self.outcomes, context.run_id, now)
        webhooks.explain(tx, self.reasons)
        failed = {reject.key for reject in self.rejects}
        rejects.write(tx, context.name, self.rejects, context.run_id, now)
        rejects.clear(tx, context.name, "webhook", [name for name in self.names if name not in failed])


def _apply_rows(context: Context, tx: Transaction, rows: Sequence[LandedEvent]) -> _Done:
    done, now = _Done(), context.clock()
    mapped: list[tuple[LandedEvent, dict[str, Any], Values]] = []
    for row in rows:
        if context.connection.webhook.read_back and row.external_id is not None:
            done.note(row, _outcome_of_record(tx, context, row.external_id))
            continue
        payload = jsonio.loads(row.payload)
        try:
            values = context.translator.to_contact(payload)
        except RecordRejected as rejected:
            done.reject(row, rejected.reasons)
            continue
        if values is None:
            done.note(row, Outcome.SKIPPED)
        else:
            mapped.append((row, payload, values))
    work = Workset(tx, context.name, context.mapping)
    identities = {str(values["id"]) for _, _, values in mapped if "id" in values}
    work.load([row.external_id for row, _, _ in mapped if row.external_id], identities, now)
    settler = Settler(work, context.mapping, context.connection, now)
    for row, payload, values in mapped:
        modified_at = _modified_at(context.connection, payload)
        try:
            outcome = hear(settler, values, row.external_id, row.received_at, modified_at, row.id)
        except RecordRejected as rejected:
            done.reject(row, rejected.reasons)
            continue
        done.note(row, outcome)
        if outcome in {Outcome.CREATED, Outcome.UPDATED} and "id" in values:
            done.contact_ids.append(str(values["id"]))
    work.save(context.run_id, now)
    done.save(context, tx, now)
    return done


def _outcome_of_record(tx: Transaction, context: Context, external_id: str) -> Outcome:
    outcome = landing.outcome(tx, context.name, external_id)
    return Outcome(outcome) if outcome is not None else Outcome.UNCHANGED


def _give_up(context: Context, rows: Sequence[LandedEvent], reasons: dict[str, str], report: Report) -> None:
    done = _Done()
    for row in rows:
        done.reject(row, reasons)
    with context.write() as tx:
        done.save(context, tx, context.clock())
    report.counts.add(done.counts)


def _record_id(connection: Connection, payload: dict[str, Any]) -> str | None:
    own = connection.webhook.id
    for path in connection.records.id if own is None else (own,):
        value = payload.get(path)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
            return str(value)
    return None


def _modified_at(connection: Connection, payload: dict[str, Any]) -> datetime | None:
    """When the record was changed, if the event says so; when it was made says nothing of that."""
    read = coercer(Spec(FieldType.INSTANT, zone=connection.timezone))
    for path in connection.records.modified:
        if path in payload and not path.startswith("created"):
            try:
                text = read(payload[path])
            except NotAValueError:
                continue
            return instants.from_text(text) if isinstance(text, str) else None
    return None
