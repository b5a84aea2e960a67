"""Apply: the one way in. Landed records become contacts, a batch to a transaction."""

from __future__ import annotations

import time
from collections import Counter

from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.exc import DataError, IntegrityError

from crm_pipeline import jsonio
from crm_pipeline.store import landing
from crm_pipeline.store.landing import Landed
from crm_pipeline.store.rejects import NewReject
from crm_pipeline.sync.context import Context, Progress, no_progress
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import Values
from crm_pipeline.sync.reports import CONTACT_IDS_KEPT, Outcome, Report
from crm_pipeline.sync.settle import Settler
from crm_pipeline.sync.workset import Workset, identities

BATCH = 1000
"""Records to a transaction."""


def apply_landed(context: Context, progress: Progress = no_progress) -> Report:
    """Apply everything that waits, oldest first.

    Raises:
        LeaseLostError: another worker has taken over; what was committed stands.
    """
    started = time.monotonic()
    report = Report("apply")
    with context.read() as tx:
        total = landing.count_waiting(tx, context.name)
    while _apply_next(context, report, BATCH):
        progress(report.counts.seen, total)
    report.duration_seconds = time.monotonic() - started
    return report


def _apply_next(context: Context, report: Report, limit: int) -> bool:
    """Apply the next batch; what the database refuses is narrowed down to the one record."""
    try:
        with context.write() as tx:
            rows = landing.waiting(tx, context.name, limit)
            done = _apply_rows(context, tx, rows)
    except (IntegrityError, DataError):
        # Either another program inserted the same contact a moment ago, and a second try
        # sees it; or one record holds what this database cannot store.
        if limit == 1:
            _reject_next(context, report)
            return True
        return _apply_next(context, report, max(1, limit // 10))
    done.add_to(report)
    return bool(rows)


class _Done:
    """What a committed batch did."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[int, str]] = []
        self.counts: Counter[Outcome] = Counter()
        self.contact_ids: list[str] = []
        self.conflicts = 0

    def note(self, row: Landed, outcome: Outcome) -> None:
        self.outcomes.append((row.id, outcome.value))
        self.counts[outcome] += 1

    def add_to(self, report: Report) -> None:
        report.counts.add(self.counts)
        report.conflicts += self.conflicts
        room = CONTACT_IDS_KEPT - len(report.contact_ids)
        report.contact_ids.extend(self.contact_ids[:room])


def _apply_rows(context: Context, tx: Transaction, rows: list[Landed]) -> _Done:
    done = _Done()
    if not rows:
        return done
    work = Workset(tx, context.name, context.mapping)
    mapped = _mapped(context, rows, work, done)
    now = context.clock()
    work.load([row.external_id for row in rows], identities(values for _, values in mapped), now)
    settler = Settler(work, context.mapping, context.connection.merge, now)
    for row, values in mapped:
        try:
            outcome = settler.delete(row) if row.deleted else settler.settle(row, values)
        except RecordRejected as rejected:
            _reject(work, row, rejected)
            outcome = Outcome.REJECTED
        else:
            work.cleared_rejects.append(row.external_id)
        done.note(row, outcome)
        if outcome in {Outcome.CREATED, Outcome.UPDATED}:
            link = work.link(row.external_id)
            contact = work.contact(link.contact_id) if link else None
            if contact:
                done.contact_ids.append(str(contact.values["id"]))
    done.conflicts = len(work.conflicts)
    work.save(context.run_id, now)
    landing.settle(tx, done.outcomes, now)
    return done


def _mapped(context: Context, rows: list[Landed], work: Workset, done: _Done) -> list[tuple[Landed, Values]]:
    """Records that map; the others are settled here."""
    mapped: list[tuple[Landed, Values]] = []
    for row in rows:
        if row.deleted:
            mapped.append((row, {}))
            continue
        try:
            values = context.translator.to_contact(jsonio.loads(row.payload))
        except RecordRejected as rejected:
            _reject(work, row, rejected)
            done.note(row, Outcome.REJECTED)
            continue
        if values is None:
            work.cleared_rejects.append(row.external_id)
            done.note(row, Outcome.SKIPPED)
        else:
            mapped.append((row, values))
    return mapped


def _reject(work: Workset, row: Landed, rejected: RecordRejected) -> None:
    work.new_rejects.append(NewReject("pull", row.external_id, rejected.reasons, record_id=row.id))


def _reject_next(context: Context, report: Report) -> None:
    """Set the next record aside: the database will not hold it."""
    with context.write() as tx:
        done = _Done()
        for row in landing.waiting(tx, context.name, 1):
            work = Workset(tx, context.name, context.mapping)
            _reject(work, row, RecordRejected({"record": "holds a value the database cannot store"}))
            done.note(row, Outcome.REJECTED)
            work.save(context.run_id, context.clock())
        landing.settle(tx, done.outcomes, context.clock())
    done.add_to(report)
