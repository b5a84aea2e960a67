"""Webhook events: what has landed is applied, in order of arrival."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any

from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.exc import DataError, IntegrityError

from crm_pipeline import jsonio
from crm_pipeline.connectors.base import ConnectorError
from crm_pipeline.store import links, rejects, webhooks
from crm_pipeline.store.rejects import NewReject
from crm_pipeline.store.webhooks import LandedEvent
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.context import Context, Progress, no_progress
from crm_pipeline.sync.errors import RecordRejected, TooManyDeletesError
from crm_pipeline.sync.mapping import Values
from crm_pipeline.sync.read_back import FIRST_RETRY, LONGEST_REST, ReadBack, is_away, put_off, read_back
from crm_pipeline.sync.reports import CONTACT_IDS_KEPT, Outcome, Report
from crm_pipeline.sync.settle import News, Settler
from crm_pipeline.sync.workset import Workset

BATCH = 500
"""Events to a transaction."""
MOST_ATTEMPTS = 5
"""An event that failed, or killed its worker, so often is set aside."""


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
    report.api_calls += heard.api_calls
    report.contact_ids = [*report.contact_ids, *heard.contact_ids][:CONTACT_IDS_KEPT]
    report.duration_seconds += heard.duration_seconds
    return report


def apply_events(context: Context, progress: Progress = no_progress) -> Report:
    """Apply every event that waits and is due, oldest first.

    Records that landed are applied before: an event that came earlier than a record was
    read has nothing to add to it.

    Raises:
        ConnectorError: the CRM cannot be asked for what events name; these wait, all others are applied.
        TooManyDeletesError: more contacts would be archived than one run may; all the rest is applied.
        LeaseLostError: another worker has taken over; what was committed stands.
    """
    started = time.monotonic()
    this = _Pass(context)
    with context.read() as tx:
        total = webhooks.count_waiting(tx, context.name, context.clock())
    while total and this.go_on():
        progress(this.report.counts.seen, total)
    this.end()
    this.report.duration_seconds = time.monotonic() - started
    return this.report


class _Pass:
    """One pass over the events that are due."""

    def __init__(self, context: Context) -> None:
        self.report = Report("apply")
        self._context = context
        self._unanswered: list[list[int]] = []  # rows of each attempt since the CRM answered last
        self._away: ConnectorError | None = None
        self._too_many: TooManyDeletesError | None = None

    def go_on(self) -> bool:
        """Apply the next events; False when none is due any more."""
        context = self._context
        rows = _begin(context)
        if not rows:
            return False
        if any(row.attempts >= MOST_ATTEMPTS for row in rows):
            why = {"record": f"gave up after {MOST_ATTEMPTS} attempts that ended without a result"}
            self._give_up(rows, why)
            return True
        read: ReadBack | None = None
        asked = [row for row in rows if row.external_id is not None and context.connection.webhook.read_back]
        if asked:
            read = self._read_back(asked)
        if asked and read is None:
            if self._away is None:
                return True  # each alone from now on, and one that is alone has to wait
            rows = [row for row in rows if row.external_id is None]
            if not rows:
                return True
        try:
            with context.write() as tx:
                done = _apply_rows(context, tx, rows, read)
        except (IntegrityError, DataError):
            # Another program may have stored the same contact a moment ago, which a second try sees.
            if len(rows) == 1 and rows[0].attempts:
                self._give_up(rows, {"record": "holds a value the database cannot store"})
            return True  # the next attempt takes them one by one
        self._report(done)
        return True

    def end(self) -> None:
        """Tell what could not be done.

        Raises:
            ConnectorError, TooManyDeletesError: as ``apply_events``.
        """
        if self._away is not None:
            raise self._away
        if self._too_many is not None:
            raise self._too_many

    def _read_back(self, rows: Sequence[LandedEvent]) -> ReadBack | None:
        """What became of the records that these name; None where they cannot be read now."""
        context = self._context
        self._unanswered.append([row.id for row in rows])
        named = list(dict.fromkeys(row.external_id for row in rows if row.external_id is not None))
        calls = context.connector.calls
        try:
            read = read_back(context, named) if self._away is None else None
        except ConnectorError as error:
            read = None
            if is_away(context, named, error):
                self._away = error
            elif len(named) == 1:
                self._unanswered.clear()  # its own fault
        finally:
            self.report.api_calls += context.connector.calls - calls
        if self._away is not None:
            put_off(context, self._unanswered)
        if read is not None or self._away is not None:
            self._unanswered.clear()
        if read is not None:
            self._too_many = self._too_many or read.too_many
        return read

    def _give_up(self, rows: Sequence[LandedEvent], reasons: dict[str, str]) -> None:
        done = _Done()
        for row in rows:
            done.reject(row, reasons)
        with self._context.write() as tx:
            done.save(self._context, tx, self._context.clock())
        self._report(done)

    def _report(self, done: _Done) -> None:
        self.report.counts.add(done.counts)
        room = CONTACT_IDS_KEPT - len(self.report.contact_ids)
        self.report.contact_ids.extend(done.contact_ids[:room])


def _begin(context: Context) -> list[LandedEvent]:
    """The next events, their attempt counted; one that failed before comes alone.

    One alone is not due again at once: should it kill its worker, all others go before it.
    """
    with context.read() as tx:  # the last look finds nothing, and need not wait for the disk
        if not webhooks.waiting(tx, context.name, context.clock(), 1):
            return []
    with context.write() as tx:
        rows = webhooks.waiting(tx, context.name, context.clock(), BATCH)
        first = list(takewhile(lambda row: row.attempts == 0, rows)) or rows[:1]
        alone = context.clock() + FIRST_RETRY * 2 ** first[0].attempts if len(first) == 1 else None
        webhooks.begin_attempt(tx, [row.id for row in first], alone)
    return first


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
    context: Context, tx: Transaction, rows: Sequence[LandedEvent], read: ReadBack | None
) -> _Done:
    """``read``: what became of the records that these name, where they were read back."""
    done, now = _Done(), context.clock()
    mapped: list[tuple[LandedEvent, dict[str, Any], Values]] = []
    told: list[LandedEvent] = []
    for row in rows:
        if read is not None and row.external_id is not None:
            told.append(row)
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
    if read is not None:
        _note_read(context, tx, told, read, done)
    done.save(context, tx, now)
    work.save(context.run_id, now)  # last: what it frees may be one of these
    return done


def _note_read(
    context: Context, tx: Transaction, rows: Sequence[LandedEvent], read: ReadBack, done: _Done
) -> None:
    """The first event that names a record has the effect that reading it back had."""
    named = {row.id: row.external_id for row in rows if row.external_id is not None}
    owners = links.owners(tx, context.name, set(named.values()))
    became = dict(read.became)
    for row in rows:
        name = named[row.id]
        if name in read.held:
            continue
        outcome = became.pop(name, Outcome.UNCHANGED)
        done.note(row, outcome)
        if outcome in {Outcome.CREATED, Outcome.UPDATED} and name in owners:
            done.contact_ids.append(owners[name])
    webhooks.belong(tx, {row: owners[name] for row, name in named.items() if name in owners})
    held = [row for row, name in named.items() if name in read.held]
    webhooks.take_back_attempt(tx, held)
    webhooks.postpone(tx, held, context.clock() + LONGEST_REST)
