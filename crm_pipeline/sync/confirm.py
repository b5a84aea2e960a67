"""Confirming: what the CRM answered to each write, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from sqlalchemy.engine import Connection as Transaction

from crm_pipeline import instants
from crm_pipeline.connectors.base import WriteResult, WriteStatus
from crm_pipeline.store import contacts, intents, landing, ledger, links, rejects
from crm_pipeline.store.intents import Intent
from crm_pipeline.store.landing import Arrival
from crm_pipeline.store.ledger import NOT_TAKEN, Change, Conflict, LedgerEntry
from crm_pipeline.store.links import Link
from crm_pipeline.store.rejects import NewReject
from crm_pipeline.sync.arrivals import arrivals, tombstone
from crm_pipeline.sync.coerce import Value, same
from crm_pipeline.sync.context import Context
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.identity import is_address
from crm_pipeline.sync.intend import DELETED_THERE, IntendedWrite
from crm_pipeline.sync.mapping import Values
from crm_pipeline.sync.merge import ABSENT, changed
from crm_pipeline.sync.reports import Outcome, Report
from crm_pipeline.sync.rewriting import looks_rewritten

FIRST_RETRY = timedelta(minutes=1)
LONGEST_RETRY = timedelta(hours=6)
CONFIRMED_TOGETHER = 500
"""Rows of a job that are settled in one transaction."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A call that has been answered: what it was to write, and one result for each."""

    sent: Sequence[IntendedWrite]
    results: Sequence[WriteResult]
    asked_at: datetime
    """Our clock just before the call."""


NO_LINKS: Mapping[str, Link] = {}


class Confirmation:
    """Settles the rows of answered calls, in one transaction."""

    def __init__(self, context: Context, tx: Transaction, known: Mapping[str, Link] = NO_LINKS) -> None:
        """Nothing is settled yet. ``known``: links as they stand, by contact; others are loaded."""
        self._context, self._tx, self._known = context, tx, known
        self._now = self._asked_at = context.clock()
        self._new_links: list[Link] = []
        self._links: list[Link] = []
        self._changes: list[Change] = []
        self._pushed: list[tuple[str, int]] = []
        self._states: list[tuple[str, str]] = []
        self._rejects: list[NewReject] = []
        self._cleared: list[str] = []
        self._existing: list[tuple[str, str | None]] = []
        self._keys: list[str] = []
        self._link_of: dict[str, Link] = {}
        self._owner: dict[str, str] = {}
        self._failures: dict[str, int] = {}
        self._arrivals: list[Arrival] = []
        self._nothing_new: list[str] = []
        self._conflicts: list[Conflict] = []
        self._unseen: list[str] = []
        self._freed: list[str] = []

    def confirm(self, answers: Sequence[Answered], report: Report) -> None:
        """Settle each write by its own answer; those nobody can tell of stay open."""
        self._load(answers)
        outcomes: Counter[Outcome] = Counter()
        for answer in answers:
            self._asked_at = answer.asked_at
            for planned, result in zip(answer.sent, answer.results, strict=True):
                outcome = self._settle(planned, result)
                if outcome is None:
                    report.pending += 1
                else:
                    outcomes[outcome] += 1
        report.counts.add(outcomes)
        report.left_out |= {DELETED_THERE} if outcomes[Outcome.SKIPPED] else set()
        self._save()

    def _load(self, answers: Sequence[Answered]) -> None:
        tx, name = self._tx, self._context.name
        keys = self._keys = [planned.intent.contact_id for answer in answers for planned in answer.sent]
        self._link_of = {key: self._known[key] for key in keys if key in self._known}
        others = [key for key in keys if key not in self._link_of]
        self._link_of |= {link.contact_id: link for link in links.load_by_contact(tx, name, others)}
        self._owner = links.owners(tx, name, self._strange(answers))
        self._failures = rejects.attempts(tx, name, "push", keys)

    def _strange(self, answers: Sequence[Answered]) -> set[str]:
        """Records that answers name and that are not linked to the contact in question."""
        own = {(key, link.external_id) for key, link in self._link_of.items()}
        return {
            result.external_id
            for answer in answers
            for planned, result in zip(answer.sent, answer.results, strict=True)
            if result.external_id and (planned.intent.contact_id, result.external_id) not in own
        }

    @cached_property
    def _open_fields(self) -> dict[str, dict[str, LedgerEntry]]:
        """Fields that wait for a person."""
        return ledger.open_fields(self._tx, self._context.name, self._keys)

    def _settle(self, planned: IntendedWrite, result: WriteResult) -> Outcome | None:
        """The outcome; None where the contact has to wait for a later run."""
        intent, status = planned.intent, result.status
        external_id = result.external_id or intent.external_id
        if external_id is not None and self._owner.get(external_id, intent.contact_id) != intent.contact_id:
            return self._refused(intent, "refused", "the CRM answers with a record linked to another contact")
        if status is WriteStatus.WRITTEN and external_id is not None:
            return self._written(planned, result, external_id)
        if status is WriteStatus.REFUSED and result.external_id != intent.external_id:
            # Made there meanwhile: read back and merged by the next run, never overwritten.
            self._existing.append((intent.id, result.external_id))
            self._back_off(intent, "a record with the same unique value exists in the CRM")
        elif status is WriteStatus.CHANGED:
            self._states.append((intent.id, "superseded"))
        elif status is WriteStatus.FAILED:
            self._states.append((intent.id, "failed"))
            self._back_off(intent, result.reason)
        elif status is WriteStatus.GONE and is_address(intent.external_id or ""):
            # Not the record's own id, only whose it is: the next pull tells the one it has.
            self._states.append((intent.id, "failed"))
            self._back_off(intent, "the CRM does not know the record by its contact's WhatsApp id")
        elif status is WriteStatus.GONE and intent.external_id is not None:
            self._arrivals.append(tombstone(intent.external_id, self._asked_at))
            self._close(intent, "gone")
            return Outcome.SKIPPED
        elif status in {WriteStatus.REFUSED, WriteStatus.GONE}:
            return self._refused(intent, "refused", result.reason)
        else:
            self._back_off(intent, result.reason or "the CRM did not say whether it took the contact")
        return None

    def _save(self) -> None:
        tx, context = self._tx, self._context
        links.insert(tx, context.name, self._new_links)
        links.note_agreed(tx, context.name, self._links)
        ledger.write_changes(tx, context.name, self._changes, context.run_id)
        ledger.write_conflicts(tx, context.name, self._conflicts, context.run_id, self._now)
        contacts.mark_pushed(tx, self._pushed)
        intents.close(tx, self._states, self._now)
        intents.name_records(tx, self._existing)
        rejects.write(tx, context.name, self._rejects, context.run_id, self._now)
        rejects.clear(tx, context.name, "push", self._failures.keys() & self._cleared)
        if self._arrivals:
            landing.land(tx, context.name, self._arrivals, context.run_id)
        # What had landed is older than our write, so that the same content read again is news.
        landing.distrust(tx, context.name, self._unseen)
        landing.settle_current(tx, context.name, self._nothing_new, Outcome.UNCHANGED.value, self._now)
        rejects.free(tx, context.name, self._freed)

    def _written(self, planned: IntendedWrite, result: WriteResult, external_id: str) -> Outcome:
        intent, link = planned.intent, self._link_of.get(planned.intent.contact_id)
        outcome = Outcome.UPDATED
        if link is None:
            outcome = Outcome.CREATED
            link = Link(external_id, intent.contact_id)
            self._new_links.append(link)
            self._owner[external_id] = intent.contact_id
            rule = "created in the CRM"
            self._changes.append(
                Change(intent.contact_id, "*", None, None, self._now, "internal", rule, None)
            )
        else:
            self._links.append(link)
        held = self._held_now(result)
        ignored = [name for name in held if _is_ignored(intent, name, held[name])]
        if outcome is Outcome.UPDATED and len(ignored) == len(intent.sent):
            outcome = Outcome.UNCHANGED
        for name in ignored:
            theirs = held.pop(name)
            self._conflicts.append(
                Conflict(intent.contact_id, name, theirs, intent.sent[name], NOT_TAKEN, None, None)
            )
        self._note_answer(planned, result, external_id, link, held)
        told = result.record.modified_at if result.record is not None else None
        told_at = instants.to_text(told) if told is not None else None
        for name, value in intent.sent.items():
            link.internal_shadow[name] = value
            link.external_shadow[name] = held.get(name, value)
            link.edits.pop(name, None)
            if name not in held:
                before, _ = link.assumed.get(name, (intent.before.get(name), None))
                link.assumed[name] = [before, told_at]
            else:
                link.assumed.pop(name, None)
        link.external_modified_at = told or link.external_modified_at
        if "id" in intent.sent and "id" in intent.before:
            self._freed.append(str(intent.before["id"]))
        self._close(intent, "confirmed")
        self._cleared.append(intent.contact_id)
        return outcome

    def _note_answer(
        self, planned: IntendedWrite, result: WriteResult, external_id: str, link: Link, held: Values
    ) -> None:
        """The answer is a read of the record: it lands, and only news in it needs applying.

        An answer that shows a part of the record must not stand for the whole of it.
        """
        record = result.record
        if (
            record is None
            or not isinstance(record.payload, dict)
            or planned.full_keys - record.payload.keys()
        ):
            self._unseen.append(external_id)
            return
        shown = record._replace(external_id=external_id)
        self._arrivals.extend(arrivals(self._context, [shown], self._asked_at))
        waiting = self._open_fields.get(planned.intent.contact_id, {})
        news = [
            name
            for name, value in held.items()
            if name not in planned.intent.sent
            and changed(value, link.external_shadow.get(name, ABSENT))
            and not (name in waiting and same(value, waiting[name].external))
        ]
        if held and not news:
            self._nothing_new.append(external_id)

    def _held_now(self, result: WriteResult) -> Values:
        """What the CRM made of our values, where its answer shows the record."""
        if result.record is None or not result.record.payload:
            return {}
        try:
            return self._context.translator.to_contact(result.record.payload) or {}
        except RecordRejected:
            return {}

    def _close(self, intent: Intent, state: str) -> None:
        """Nothing is left to do for the contact as it was."""
        self._states.append((intent.id, state))
        self._pushed.append((intent.contact_id, intent.contact_version))

    def _back_off(self, intent: Intent, reason: str) -> None:
        """The next run tries again; only what fails over and over is spaced out."""
        wait = min(FIRST_RETRY * (2 ** min(self._failures.get(intent.contact_id, 0), 10) - 1), LONGEST_RETRY)
        reject = NewReject("push", intent.contact_id, {"record": reason}, next_attempt_at=self._now + wait)
        self._rejects.append(reject)

    def _refused(self, intent: Intent, state: str, reason: str) -> Outcome:
        """Repeating would not help: it waits for another content, another mapping or a replay."""
        self._close(intent, state)
        self._rejects.append(NewReject("push", intent.contact_id, {"record": reason}))
        return Outcome.REJECTED


def _is_ignored(intent: Intent, name: str, shown: Value) -> bool:
    """Whether the CRM took a write, and shows that the field holds what it held before."""
    sent = intent.sent.get(name, shown)
    return same(shown, intent.before.get(name)) and not same(shown, sent) and not looks_rewritten(sent, shown)
