"""Webhook events: what has landed is applied, in order of arrival."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.exc import DataError, IntegrityError

from crm_pipeline import jsonio
from crm_pipeline.connectors.base import ConnectorError
from crm_pipeline.store import landing, rejects, webhooks
from crm_pipeline.store.rejects import NewReject
from crm_pipeline.store.webhooks import LandedEvent
from crm_pipeline.sync.absence import ask
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.context import Context, Progress, no_progress
from crm_pipeline.sync.errors import RecordRejected, TooManyDeletesError
from crm_pipeline.sync.mapping import Values
from crm_pipeline.sync.reports import CONTACT_IDS_KEPT, Outcome, Report
from crm_pipeline.sync.settle import News, Settler
from crm_pipeline.sync.workset import Workset

BATCH = 500
"""Events to a transaction."""
MOST_ATTEMPTS = 5
"""An event that failed, or killed its worker, so often is set aside."""
FIRST_RETRY = timedelta(seconds=30)


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


def apply_all(
    context: Context,
    progress: Progress = no_progress,
    *,
    allow_deletes: bool = False,
    begun: Report | None = None,
) -> Report:
    """Apply everything that waits: records first, then events; ``begun`` tells what was applied before.

    Raises:
        TooManyDeletesError: more contacts would be archived than one run may; all the rest is applied.
        LeaseLostError: another worker has taken over; what was committed stands.
    """
    try:
        report = apply_landed(context, progress, allow_deletes=allow_deletes, begun=begun)
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
    try:
        became = _read_back(context, rows)
    except ConnectorError:
        _postpone(context, rows)
        return True
    try:
        with context.write() as tx:
            done = _apply_rows(context, tx, rows, became)
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
    with context.read() as tx:  # the last look finds nothing, and need not wait for the disk
        if not webhooks.waiting(tx, context.name, context.clock(), 1):
            return []
    with context.write() as tx:
        rows = webhooks.waiting(tx, context.name, context.clock(), BATCH)
        first = list(takewhile(lambda row: row.attempts == 0, rows)) or rows[:1]
        webhooks.begin_attempt(tx, [row.id for row in first])
    return first


def _read_back(context: Context, rows: Sequence[LandedEvent]) -> dict[str, Outcome]:
    """Read the records that events name, and apply them; what became of those that were news.

    Raises:
        ConnectorError: the CRM cannot be asked now.
    """
    if not context.connection.webhook.read_back:
        return {}
    named = list(dict.fromkeys(row.external_id for row in rows if row.external_id is not None))
    with context.read() as tx:
        before = landing.standings(tx, context.name, named)
    ask(context, named)
    # Too many deletes wait in the landing table, for the next run to stop at and tell of.
    with suppress(TooManyDeletesError):
        apply_landed(context)
    with context.read() as tx:
        after = landing.standings(tx, context.name, named)
    return {
        name: Outcome(now.outcome)
        for name, now in after.items()
        if now.outcome is not None
        and (name not in before or before[name].id != now.id or before[name].outcome is None)
    }


def _postpone(context: Context, rows: Sequence[LandedEvent]) -> None:
    attempts = max(row.attempts for row in rows)
    with context.write() as tx:
        webhooks.postpone(tx, [row.id for row in rows], context.clock() + FIRST_RETRY * 2**attempts)


class _Done:
    def __init__(self) -> None:
        self.outcomes: list[tuple[int, str]] = []
        self.reasons: list[tuple[int, dict[str, str]]] = []
        self.rejects: list[NewReject] = []
        self.names: list[str] = []
        self.counts: Counter[Outcome] = Counter()
        self.contact_ids: list[str] = []

    def reject(self, row: LandedEvent, reasons: dict[str, str], contact_id: str | None = None) -> None:
        self.reasons.append((row.id, reasons))
        self.rejects.append(NewReject("webhook", row.event_id, reasons, contact_id=contact_id))
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


def _apply_rows(
    context: Context, tx: Transaction, rows: Sequence[LandedEvent], became: dict[str, Outcome]
) -> _Done:
    """``became``: of records that were read back; the first event that names one has its effect."""
    done, now = _Done(), context.clock()
    mapped: list[tuple[LandedEvent, dict[str, Any], Values]] = []
    for row in rows:
        if context.connection.webhook.read_back and row.external_id is not None:
            done.note(row, became.pop(row.external_id, Outcome.UNCHANGED))
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
    received = min((row.received_at for row, _, _ in mapped), default=now)
    named = [row.external_id for row, _, _ in mapped if row.external_id]
    work.load(named, identities, now, read_since=received)
    settler = Settler(work, context.mapping, context.connection, now)
    for row, payload, values in mapped:
        modified_at = context.mapping.modified_at(payload)
        try:
            outcome = hear(settler, values, row.external_id, row.received_at, modified_at, row.id)
        except RecordRejected as rejected:
            done.reject(row, rejected.reasons, rejected.contact_id)
            continue
        done.note(row, outcome)
        if outcome in {Outcome.CREATED, Outcome.UPDATED} and "id" in values:
            done.contact_ids.append(str(values["id"]))
    done.save(context, tx, now)
    work.save(context.run_id, now)  # last: what it frees may be one of these
    return done


def _give_up(context: Context, rows: Sequence[LandedEvent], reasons: dict[str, str], report: Report) -> None:
    done = _Done()
    for row in rows:
        done.reject(row, reasons)
    with context.write() as tx:
        done.save(context, tx, context.clock())
    report.counts.add(done.counts)
