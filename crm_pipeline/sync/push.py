"""Push: contacts that changed, to the CRM; in its largest batches, intent first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from crm_pipeline.connectors.base import Bulk, ConnectorError, JobRefusedError, WriteResult
from crm_pipeline.store import contacts, intents
from crm_pipeline.store.contacts import StoredContact
from crm_pipeline.sync.confirm import CONFIRMED_TOGETHER, Confirmation
from crm_pipeline.sync.context import Context, Progress, no_progress
from crm_pipeline.sync.events import apply_all
from crm_pipeline.sync.forget import readmit
from crm_pipeline.sync.intend import IntendedWrite, intend
from crm_pipeline.sync.look import Look
from crm_pipeline.sync.recovery import recover
from crm_pipeline.sync.reports import Report


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
        known_again = readmit(context)
        apply_all(context)
        report.pending = recover(context, report)
        look = Look(context, done=just_pulled and not known_again)
        with context.read() as tx:
            total = 1 if only else contacts.count_to_push(tx, context.name, context.clock())
        sender, after = _Sender(context, report, total), ""
        while batch := _next_batch(context, after, only):
            look.at(batch)
            sender.plan(batch)
            progress(report.counts.seen, total)
            after = batch[-1].id
            if only is not None:
                break
        sender.send_rest()
        progress(report.counts.seen, total)
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


class _Sender:
    """Plans and stores intents; makes the calls, each as full as the CRM allows; confirms row by row."""

    def __init__(self, context: Context, report: Report, total: int) -> None:
        """``total``: contacts that may need a write."""
        self._context, self._report = context, report
        self._size = self._full = context.connector.batch_size
        self._bulk = context.connector.bulk
        if self._bulk is not None and total >= self._bulk.threshold:
            self._full = self._bulk.most
        # Creates and changes are different calls: kept apart, they fill them.
        self._planned: dict[bool, list[IntendedWrite]] = {False: [], True: []}

    def plan(self, batch: Sequence[StoredContact]) -> None:
        """Decide what a batch of contacts needs, and send what fills whole calls."""
        with self._context.write() as tx:
            plan = intend(self._context, tx, batch)
        self._report.counts.add(plan.outcomes)
        self._report.pending += plan.waiting
        for planned in plan.writes:
            self._planned[planned.write.external_id is None].append(planned)
        for waiting in self._planned.values():
            while len(waiting) >= self._full:
                self._send(waiting)

    def send_rest(self) -> None:
        """Send what is left."""
        for waiting in self._planned.values():
            while waiting:
                self._send(waiting)

    def _send(self, waiting: list[IntendedWrite]) -> None:
        """Send the first of them, by the way that takes the fewest calls."""
        try:
            if self._bulk is None or not self._sent_as_job(self._bulk, waiting):
                part = waiting[: self._size]
                asked_at = self._context.clock()
                results = self._context.connector.write([planned.write for planned in part])
                del waiting[: len(part)]
                self._confirm(part, results, asked_at)
        except ConnectorError:
            # Nothing of this part was sent, nor of those that follow.
            unsent = [planned for each in self._planned.values() for planned in each]
            with self._context.write() as tx:
                states = [(planned.intent.id, "failed") for planned in unsent]
                intents.close(tx, states, self._context.clock())
            raise

    def _sent_as_job(self, bulk: Bulk, waiting: list[IntendedWrite]) -> bool:
        """Send what is worth a job as one; False where nothing is, or the CRM will not."""
        places = bulk.portion([planned.write for planned in waiting])
        if not places:
            return False
        part = [waiting[place] for place in places]
        writes = [planned.write for planned in part]
        try:
            job = bulk.open(writes)
            self._name_job(part, job)
            asked_at = self._context.clock()
            results = bulk.send(job, writes)
        except JobRefusedError:
            self._name_job(part, None)
            self._bulk = None
            return False
        chosen = set(places)
        waiting[:] = [planned for place, planned in enumerate(waiting) if place not in chosen]
        for start in range(0, len(part), CONFIRMED_TOGETHER):
            end = start + CONFIRMED_TOGETHER
            self._confirm(part[start:end], results[start:end], asked_at)
        return True

    def _name_job(self, part: Sequence[IntendedWrite], job: str | None) -> None:
        """Write down which job carries them, before it carries anything."""
        with self._context.write() as tx:
            intents.name_job(tx, [planned.intent.id for planned in part], job)

    def _confirm(
        self, part: Sequence[IntendedWrite], results: Sequence[WriteResult], asked_at: datetime
    ) -> None:
        with self._context.write() as tx:
            Confirmation(self._context, tx, asked_at).confirm(part, results, self._report)
