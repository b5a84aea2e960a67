"""Push: contacts that changed, to the CRM; in its largest batches, intent first."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.engine import Connection as Transaction

from crm_pipeline import jsonio
from crm_pipeline.connectors.base import ConnectorError, Record, Write, WriteResult, WriteStatus
from crm_pipeline.store import contacts, intents, landing, ledger, links, rejects
from crm_pipeline.store.contacts import StoredContact
from crm_pipeline.store.intents import Intent
from crm_pipeline.store.ledger import Change, OpenConflict
from crm_pipeline.store.links import Link
from crm_pipeline.store.rejects import NewReject
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.arrivals import arrivals, tombstone
from crm_pipeline.sync.coerce import same
from crm_pipeline.sync.context import Context, Progress, no_progress
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.look import Look
from crm_pipeline.sync.mapping import Values
from crm_pipeline.sync.merge import ABSENT, changed
from crm_pipeline.sync.plan import PlannedWrite, plan_write
from crm_pipeline.sync.recovery import recover
from crm_pipeline.sync.reports import Outcome, Report
from crm_pipeline.sync.workset import flat

FIRST_RETRY = timedelta(minutes=1)
LONGEST_RETRY = timedelta(hours=6)


def push_changed(
    context: Context, progress: Progress = no_progress, *, only: str | None = None, just_pulled: bool = False
) -> Report:
    """Tell the CRM of every contact that changed, or of one.

    Unless the caller has ``just_pulled``, the CRM is looked at first: a change made there
    since the last pull must be merged, not overwritten.

    What has landed is applied first, so that no older read can come after our write; then
    open intents of earlier runs are settled, in transactions of their own.

    Raises:
        ConnectorError: the CRM refuses us or cannot be reached; what was confirmed stands.
        LeaseLostError: another worker has taken over.
    """
    report = Report("push")
    started, calls = time.monotonic(), context.connector.calls
    try:
        apply_landed(context)
        report.pending = recover(context)
        look = Look(context, done=just_pulled)
        with context.read() as tx:
            total = 1 if only else contacts.count_to_push(tx, context.name, context.clock())
        after = ""
        while batch := _next_batch(context, after, only):
            look.at(batch)
            _push_batch(context, batch, report)
            progress(report.counts.seen, total)
            after = batch[-1].id
            if only is not None:
                break
    finally:
        report.api_calls = context.connector.calls - calls
        report.duration_seconds = time.monotonic() - started
    return report


def _next_batch(context: Context, after: str, only: str | None) -> list[StoredContact]:
    size = max(context.connector.batch_size, _SMALLEST_BATCH)
    with context.read() as tx:
        return contacts.to_push(tx, context.name, context.clock(), size, after, only)


_SMALLEST_BATCH = 50
"""Contacts planned together where the CRM takes one at a time."""


def _push_batch(context: Context, batch: Sequence[StoredContact], report: Report) -> None:
    """Plan and store intents; make the calls; confirm row by row."""
    with context.write() as tx:
        plan = _plan(context, tx, batch)
    report.counts.add(plan.outcomes)
    report.pending += plan.waiting
    for start in range(0, len(plan.writes), context.connector.batch_size):
        part = plan.writes[start : start + context.connector.batch_size]
        asked_at = context.clock()
        try:
            results = context.connector.write([write for _, write in part])
        except ConnectorError:
            # Nothing of this part was sent, nor of those that follow.
            with context.write() as tx:
                intents.close(
                    tx, [(intent.id, "failed") for intent, _ in plan.writes[start:]], context.clock()
                )
            raise
        with context.write() as tx:
            _Confirmation(context, tx, asked_at, plan.shown).confirm([i for i, _ in part], results, report)


@dataclass(slots=True)
class _Plan:
    writes: list[tuple[Intent, Write]]
    shown: dict[str, frozenset[str]]
    """By intent: the keys a full record has."""
    outcomes: Counter[Outcome]
    waiting: int


def _plan(context: Context, tx: Transaction, batch: Sequence[StoredContact]) -> _Plan:
    keys = [contact.id for contact in batch]
    # Read again under the lock: the plan must be of the row as it stands.
    rows = contacts.load(tx, keys)
    link_of = {link.contact_id: link for link in links.load_by_contact(tx, context.name, keys)}
    held = ledger.open_fields(tx, context.name, keys)
    unsettled = intents.open_of(tx, context.name, keys)
    known = landing.payloads(tx, context.name, [link.external_id for link in link_of.values()])
    plan = _Plan([], {}, Counter(), 0)
    settled: list[tuple[str, int]] = []
    refused: list[NewReject] = []
    for contact in rows.values():
        link = link_of.get(contact.id)
        if contact.id in unsettled or (link is not None and link.contact_deleted_at is not None):
            plan.waiting += 1
            continue
        if contact.archived_at is not None or (link is not None and link.external_deleted_at is not None):
            plan.outcomes[Outcome.SKIPPED] += 1
            settled.append((contact.id, contact.row_version))
            continue
        record = known.get(link.external_id) if link is not None else None
        try:
            planned = plan_write(
                context.mapping,
                context.translator,
                contact.id,
                contact.row_version,
                flat(contact.data),
                link,
                held.get(contact.id, {}),
                jsonio.loads(record) if record is not None else None,
            )
        except RecordRejected as rejected:
            plan.outcomes[Outcome.REJECTED] += 1
            refused.append(NewReject("push", contact.id, rejected.reasons))
            settled.append((contact.id, contact.row_version))
            continue
        if isinstance(planned, Outcome):
            plan.outcomes[planned] += 1
            settled.append((contact.id, contact.row_version))
            continue
        intent = _intend(planned, context.clock())
        plan.writes.append(
            (intent, Write(intent.id, planned.external_id, planned.payload, expected=planned.expected))
        )
        plan.shown[intent.id] = planned.shown
    intents.store(tx, context.name, [intent for intent, _ in plan.writes], context.run_id)
    contacts.mark_pushed(tx, settled)
    rejects.write(tx, context.name, refused, context.run_id, context.clock())
    return plan


def _intend(planned: PlannedWrite, now: datetime) -> Intent:
    return Intent(
        id=str(uuid.uuid4()),
        contact_id=planned.contact_id,
        external_id=planned.external_id,
        before=planned.before,
        sent=planned.sent,
        contact_version=planned.contact_version,
        created_at=now,
    )


class _Confirmation:
    """Settles the rows of one answered call, in one transaction."""

    def __init__(
        self, context: Context, tx: Transaction, asked_at: datetime, shown: Mapping[str, frozenset[str]]
    ) -> None:
        self._context, self._tx, self._asked_at, self._full = context, tx, asked_at, shown
        self._now = context.clock()
        self._new_links: list[Link] = []
        self._links: list[Link] = []
        self._changes: list[Change] = []
        self._pushed: list[tuple[str, int]] = []
        self._states: list[tuple[str, str]] = []
        self._rejects: list[NewReject] = []
        self._cleared: list[str] = []
        self._existing: list[tuple[str, str | None]] = []
        self._open_fields: dict[str, dict[str, OpenConflict]] = {}
        self._shown: list[Record] = []
        self._gone: list[str] = []
        self._nothing_new: list[str] = []

    def confirm(self, sent: Sequence[Intent], results: Sequence[WriteResult], report: Report) -> None:
        context, tx = self._context, self._tx
        keys = [intent.contact_id for intent in sent]
        link_of = {link.contact_id: link for link in links.load_by_contact(tx, context.name, keys)}
        self._open_fields = ledger.open_fields(tx, context.name, keys)
        failures = rejects.attempts(tx, context.name, "push", keys)
        outcomes: Counter[Outcome] = Counter()
        for intent, result in zip(sent, results, strict=True):
            external_id = result.external_id or intent.external_id
            if result.status is WriteStatus.WRITTEN and external_id is not None:
                outcomes[self._written(intent, result, external_id, link_of.get(intent.contact_id))] += 1
            elif result.status in {WriteStatus.UNKNOWN, WriteStatus.WRITTEN}:
                # Its end, or the id of what was created, is unknown: the intent stays open.
                report.pending += 1
            elif result.status is WriteStatus.REFUSED and result.external_id != intent.external_id:
                # It exists already, made there meanwhile: read back and merged, never overwritten.
                self._existing.append((intent.id, result.external_id))
                report.pending += 1
            elif result.status is WriteStatus.CHANGED:
                self._states.append((intent.id, "superseded"))
                report.pending += 1
            elif result.status is WriteStatus.FAILED:
                report.pending += 1
                self._failed(intent, result, failures.get(intent.contact_id, 0))
            else:
                outcomes[self._refused(intent, result)] += 1
        report.counts.add(outcomes)
        links.insert(tx, context.name, self._new_links)
        links.update(tx, context.name, self._links)
        ledger.write_changes(tx, context.name, self._changes, context.run_id)
        contacts.mark_pushed(tx, self._pushed)
        intents.close(tx, self._states, self._now)
        intents.name_records(tx, self._existing)
        rejects.write(tx, context.name, self._rejects, context.run_id, self._now)
        rejects.clear(tx, context.name, "push", self._cleared)
        landing.land(tx, context.name, arrivals(context, self._shown, self._asked_at), context.run_id)
        tombstones = [tombstone(external_id, self._asked_at) for external_id in self._gone]
        landing.land(tx, context.name, tombstones, context.run_id)
        landing.settle_current(tx, context.name, self._nothing_new, Outcome.UNCHANGED.value, self._now)

    def _written(self, intent: Intent, result: WriteResult, external_id: str, link: Link | None) -> Outcome:
        outcome = Outcome.UPDATED
        if link is None:
            outcome = Outcome.CREATED
            link = Link(external_id, intent.contact_id)
            self._new_links.append(link)
            self._first_history(intent)
        else:
            self._links.append(link)
        held = self._held_now(result)
        self._note_answer(result, external_id, link, intent, held)
        for name, value in intent.sent.items():
            link.internal_shadow[name] = value
            link.external_shadow[name] = held.get(name, value)
            link.edits.pop(name, None)
            if name not in held and name not in link.assumed:
                link.assumed.append(name)
            elif name in held and name in link.assumed:
                link.assumed.remove(name)
        if result.record is not None and result.record.modified_at is not None:
            link.external_modified_at = result.record.modified_at
        self._states.append((intent.id, "confirmed"))
        self._pushed.append((intent.contact_id, intent.contact_version))
        self._cleared.append(intent.contact_id)
        return outcome

    def _note_answer(
        self, result: WriteResult, external_id: str, link: Link, intent: Intent, held: Values
    ) -> None:
        """The answer is a read of the record: it lands, and only news in it needs applying."""
        if result.record is None or not self._is_full(intent, result.record):
            return
        self._shown.append(replace(result.record, external_id=external_id))
        waiting = self._open_fields.get(intent.contact_id, {})
        news = [
            name
            for name, value in held.items()
            if name not in intent.sent
            and changed(value, link.external_shadow.get(name, ABSENT))
            and not (name in waiting and same(value, waiting[name].external))
        ]
        if held and not news:
            self._nothing_new.append(external_id)

    def _is_full(self, intent: Intent, record: Record) -> bool:
        """An answer that shows a part of the record must not stand for the whole of it."""
        return isinstance(record.payload, dict) and self._full[intent.id] <= record.payload.keys()

    def _held_now(self, result: WriteResult) -> Values:
        """What the CRM made of our values, where its answer shows the record."""
        if result.record is None:
            return {}
        try:
            return self._context.translator.to_contact(result.record.payload) or {}
        except RecordRejected:
            return {}

    def _first_history(self, intent: Intent) -> None:
        self._changes.append(
            Change(intent.contact_id, "*", None, None, self._now, "internal", "created in the CRM", None)
        )

    def _failed(self, intent: Intent, result: WriteResult, failures: int) -> None:
        self._states.append((intent.id, "failed"))
        # The next run tries again; only what fails over and over is spaced out.
        wait = min(FIRST_RETRY * (2**failures - 1), LONGEST_RETRY)
        self._rejects.append(
            NewReject("push", intent.contact_id, {"record": result.reason}, next_attempt_at=self._now + wait)
        )

    def _refused(self, intent: Intent, result: WriteResult) -> Outcome:
        """Repeating would not help: it waits for another content, another mapping or a replay."""
        self._pushed.append((intent.contact_id, intent.contact_version))
        self._states.append((intent.id, result.status.value))
        if result.status is WriteStatus.GONE and intent.external_id is not None:
            self._gone.append(intent.external_id)
            return Outcome.SKIPPED
        self._rejects.append(NewReject("push", intent.contact_id, {"record": result.reason}))
        return Outcome.REJECTED
