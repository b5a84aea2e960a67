"""Meanwhile: what a pull brings is applied while the CRM makes its next page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.exc import DataError, IntegrityError

from crm_pipeline.store import landing
from crm_pipeline.store.landing import Applied, Arrival, LandingCounts, News
from crm_pipeline.sync.apply import BATCH, Settled, apply_next, settle, wake
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
        self._context, self._batch = context, batch
        self._waiting = 0
        self._awake = False

    def land(self, arrived: list[Arrival], note: Note) -> LandingCounts:
        """Store a page and what ``note`` writes; apply what is a whole batch by now.

        Raises:
            LeaseLostError: another worker has taken over; what was committed stands.
        """
        whole = len(arrived) >= self._batch
        try:
            counts = self._land(arrived, note, at_once=whole)
        except (IntegrityError, DataError):
            if not whole:
                raise
            counts = self._land(arrived, note, at_once=False)  # and applied in ever smaller batches
        if self._waiting >= self._batch:
            with self._timed():
                self._wake()
                apply_next(self._context, self.report, self._batch, deletes=False)
            self._waiting -= self._batch
        return counts

    def _land(self, arrived: list[Arrival], note: Note, *, at_once: bool) -> LandingCounts:
        """Store a page; ``at_once``: as what it becomes, where it brings a whole batch and nothing waits."""
        context = self._context
        if at_once:
            with self._timed():
                self._wake()
        with context.write() as tx:
            news = landing.sort_out(tx, context.name, arrived)
            settled = self._settle(tx, news) if at_once else None
            if settled is None:
                landing.store(tx, context.name, context.run_id, news)
            note(tx)
        if settled is not None:
            settled.add_to(self.report)
        else:
            self._waiting += len(news.arrivals)
        return news.counts

    def _settle(self, tx: Transaction, news: News) -> Settled | None:
        """Store news as what they become; None, and nothing done, where they have to wait."""
        context = self._context
        due = self._batch <= len(news.arrivals) <= _MOST * self._batch
        if not due or landing.count_waiting(tx, context.name, deletes=False):
            return None
        with self._timed():
            rows = landing.numbered(tx, news)
            settled = settle(context, tx, [row for row in rows if not row.deleted])
            applied = Applied(rows, settled.outcomes, settled.at)
            landing.store(tx, context.name, context.run_id, news, applied)
            settled.save(context.run_id)
        return settled

    def _wake(self) -> None:
        if not self._awake:
            wake(self._context)
            self._awake = True

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.report.duration_seconds += time.monotonic() - started
