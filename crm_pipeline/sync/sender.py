"""The sender: plans, stores intents, makes calls as full as the CRM allows, and confirms row by row.

Calls wait for their answers in threads; everything is decided and stored by the one working thread,
which plans on meanwhile. When the CRM refuses us or falls silent, no other call is started, those under
way are awaited and confirmed, and the intents of what was never sent are closed as failed. Whatever else
happens leaves open intents, as a kill does, for recovery to settle.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self, TypeAlias

from crm_pipeline.connectors.base import (
    Bulk,
    ConnectorError,
    CrmUnavailableError,
    JobRefusedError,
    WriteResult,
    WriteStatus,
)
from crm_pipeline.store import intents
from crm_pipeline.store.links import Link
from crm_pipeline.sync.confirm import CONFIRMED_TOGETHER, Answered, Confirmation
from crm_pipeline.sync.context import Context
from crm_pipeline.sync.flights import Flights
from crm_pipeline.sync.intend import IntendedWrite, intend
from crm_pipeline.sync.reports import Report

SILENT_IN_A_ROW = 3
"""After so many calls in a row without a verdict on any of their rows the CRM is taken to be away."""
_NO_VERDICT = frozenset({WriteStatus.FAILED, WriteStatus.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Sent:
    """A call under way."""

    writes: Sequence[IntendedWrite]
    asked_at: datetime
    """Our clock just before it."""


Calls: TypeAlias = Flights[Sent, list[WriteResult]]


class Sender:
    """Sends what a push plans."""

    def __init__(self, context: Context, report: Report, total: int, calls: Calls) -> None:
        """``total``: contacts that may need a write."""
        self._context, self._report, self._calls = context, report, calls
        self._size = self._full = context.connector.batch_size
        self._bulk = context.connector.bulk
        if self._bulk is not None and total >= self._bulk.threshold:
            self._full = self._bulk.most
        # Creates and changes are different calls: kept apart, they fill them.
        self._planned: dict[bool, list[IntendedWrite]] = {False: [], True: []}
        self._links: dict[str, Link] = {}
        """Of writes whose end is not known, by contact: nobody but the holder of the lease writes links."""
        self._refused: list[IntendedWrite] = []
        self._silent = 0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End in order where it is the CRM that failed."""
        if isinstance(error, ConnectorError):
            self._give_up()

    def plan(self, contacts: Sequence[str], *, applied: bool) -> None:
        """Decide what contacts need, and send what fills whole calls.

        ``applied``: links may have changed since the last time; those of writes under way are read anew.
        """
        if applied:
            self._links.clear()
        with self._context.write() as tx:
            plan = intend(self._context, tx, contacts)
        if self._full == self._size:  # a job's are too many to be kept
            self._links |= plan.links
        self._report.counts.add(plan.outcomes)
        self._report.left_out |= plan.left_out
        self._report.pending += plan.waiting
        for planned in plan.writes:
            self._planned[planned.write.external_id is None].append(planned)
        for waiting in self._planned.values():
            while len(waiting) >= self._full:
                self._send(waiting)

    def finish(self) -> None:
        """Send what is left, and confirm everything."""
        for waiting in self._planned.values():
            while waiting:
                self._send(waiting)
        while self._calls.under_way:
            self._take(wait=True)

    def _send(self, waiting: list[IntendedWrite]) -> None:
        """Send the first of them, by the way that takes the fewest calls."""
        if self._bulk is not None and self._sent_as_job(self._bulk, waiting):
            return
        while self._calls.are_full():
            self._take(wait=True)
        part = waiting[: self._size]
        del waiting[: len(part)]
        writes = [planned.write for planned in part]
        write = partial(self._context.connector.write, writes)
        self._calls.start(Sent(part, self._context.clock()), write)
        if self._calls.are_full() and self._calls.have_landed():
            self._take(wait=False)  # till then, answers gather: together they cost one transaction

    def _take(self, *, wait: bool) -> None:
        """Confirm what has come in.

        Raises:
            ConnectorError: the CRM refuses us, or has fallen silent.
        """
        answers, errors = [], []
        for sent, came in self._calls.landed(wait=wait):
            if isinstance(came, BaseException):
                errors.append(came)
                if isinstance(came, ConnectorError):  # nothing of the call was applied
                    self._refused.extend(sent.writes)
            else:
                answers.append(Answered(sent.writes, came, sent.asked_at))
        if answers:
            with self._context.write() as tx:
                Confirmation(self._context, tx, self._links).confirm(answers, self._report)
            for answer in answers:
                for planned in answer.sent:
                    self._links.pop(planned.intent.contact_id, None)
        for error in errors:
            raise error
        self._listen(answers)

    def _listen(self, answers: Sequence[Answered]) -> None:
        """Tell a CRM that has fallen silent from one that cannot take some rows."""
        for answer in answers:
            silent = all(result.status in _NO_VERDICT for result in answer.results)
            self._silent = self._silent + 1 if silent else 0
            if self._silent >= SILENT_IN_A_ROW:
                raise CrmUnavailableError(answer.results[-1].reason)

    def _give_up(self) -> None:
        """Start nothing more: take what is under way, and close what was never sent."""
        while self._calls.under_way:
            with suppress(ConnectorError):  # the first that failed is told
                self._take(wait=True)
        unsent = [*self._refused, *(planned for each in self._planned.values() for planned in each)]
        with self._context.write() as tx:
            intents.close(tx, [(each.intent.id, "failed") for each in unsent], self._context.clock())

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
            with self._context.write() as tx:
                answered = Answered(part[start:end], results[start:end], asked_at)
                Confirmation(self._context, tx).confirm([answered], self._report)
        return True

    def _name_job(self, part: Sequence[IntendedWrite], job: str | None) -> None:
        """Write down which job carries them, before it carries anything."""
        with self._context.write() as tx:
            intents.name_job(tx, [planned.intent.id for planned in part], job)
