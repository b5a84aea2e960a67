"""Meanwhile: what a pull brings is applied while the CRM makes its next page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.exc import DataError, IntegrityError

from crm_pipeline.store import landing
from crm_pipeline.store.landing import BATCH, Applied, Arrival, LandingCounts, Sorted
from crm_pipeline.sync.apply import Settled, apply_next, settle, wake
from crm_pipeline.sync.context import Context
from crm_pipeline.sync.pull import Note
from crm_pipeline.sync.reports import Report

_MOST = 2
"""Batches to a transaction, where a page is so large: webhooks wait for its end."""


class Meanwhile:
    """Stores the pages of a pull and applies what they bring; deletes wait for the end."""

    def __init__(self, context: Context, batch: int = BATCH) -> None:
        """``batch``: so many records are worth a transaction."""
        self.report = Report("apply")
        self._context, self._batch, self._most = context, batch, _MOST * batch
        self._waiting = 0
        self._awake = False

    def land(self, arrived: list[Arrival], note: Note) -> LandingCounts:
        """Store a page and what ``note`` writes; apply what is a whole batch by now.

        Raises:
            LeaseLostError: another worker has taken over; what was committed stands.
        """
        whole = len(arrived) >= self._batch
        if whole:
            self._wake()
        try:
            counts = self._land(arrived, note, at_once=whole)
        except (IntegrityError, DataError):
            if not whole:
                raise
            counts = self._land(arrived, note, at_once=False)  # and applied in ever smaller batches
        if self._waiting >= self._batch:
            self._wake()
            # More than one page brought, where there is more: what was left by another run has to go first.
            with self._timed():
                apply_next(self._context, self.report, self._most, deletes=False)
            self._waiting = max(0, self._waiting - self._most)
        return counts

    def _land(self, arrived: list[Arrival], note: Note, *, at_once: bool) -> LandingCounts:
        """Store a page; ``at_once``: as what it becomes, where nothing waits."""
        context = self._context
        with context.write() as tx:
            news = landing.sort_out(tx, context.name, arrived)
            settled = self._store_settled(tx, news) if at_once else None
            if settled is None:
                landing.store(tx, context.name, context.run_id, news)
            note(tx)
        if settled is not None:
            settled.add_to(self.report)
        else:
            self._waiting += len(news.arrivals)
        return news.counts

    def _store_settled(self, tx: Transaction, news: Sorted) -> Settled | None:
        """Store news as what they become; None, and nothing done, where they have to wait."""
        context = self._context
        live = sum(not each.deleted for each in news.arrivals)
        if not live or len(news.arrivals) > self._most or landing.any_waits(tx, context.name):
            return None
        with self._timed():
            rows = landing.numbered(tx, news)
            settled = settle(context, tx, [row for row in rows if not row.deleted])
            # First the records: what is saved then may concern them, as when one is not to be trusted.
            landing.store(tx, context.name, context.run_id, news, Applied(rows, settled.outcomes, settled.at))
            settled.save(context.run_id)
        return settled

    def _wake(self) -> None:
        if not self._awake:
            with self._timed():
                wake(self._context)
            self._awake = True

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.report.duration_seconds += time.monotonic() - started
