"""Push: contacts that changed, to the CRM; in its largest batches, intent first."""

from __future__ import annotations

import time
from collections.abc import Sequence

from crm_pipeline.connectors.base import ConnectorError
from crm_pipeline.store import contacts, intents
from crm_pipeline.store.contacts import StoredContact
from crm_pipeline.sync.confirm import Confirmation
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
        report.pending = recover(context)
        look = Look(context, done=just_pulled and not known_again)
        with context.read() as tx:
            total = 1 if only else contacts.count_to_push(tx, context.name, context.clock())
        sender, after = _Sender(context, report), ""
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

    def __init__(self, context: Context, report: Report) -> None:
        self._context, self._report = context, report
        self._size = context.connector.batch_size
        self._planned: list[IntendedWrite] = []

    def plan(self, batch: Sequence[StoredContact]) -> None:
        """Decide what a batch of contacts needs, and send what fills whole calls."""
        with self._context.write() as tx:
            plan = intend(self._context, tx, batch)
        self._report.counts.add(plan.outcomes)
        self._report.pending += plan.waiting
        self._planned += plan.writes
        while len(self._planned) >= self._size:
            self._send()

    def send_rest(self) -> None:
        """Send what is left."""
        while self._planned:
            self._send()

    def _send(self) -> None:
        context, part = self._context, self._planned[: self._size]
        asked_at = context.clock()
        try:
            results = context.connector.write([planned.write for planned in part])
        except ConnectorError:
            # Nothing of this part was sent, nor of those that follow.
            unsent = [(planned.intent.id, "failed") for planned in self._planned]
            with context.write() as tx:
                intents.close(tx, unsent, context.clock())
            raise
        self._planned = self._planned[self._size :]
        with context.write() as tx:
            Confirmation(context, tx, asked_at).confirm(part, results, self._report)
