"""Intending: what a batch of contacts needs written, decided and stored before any call is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy.engine import Connection as Transaction

from crm_pipeline import jsonio
from crm_pipeline.connectors.base import Write
from crm_pipeline.ids import new_ids
from crm_pipeline.store import contacts, intents, landing, ledger, links, rejects
from crm_pipeline.store.contacts import StoredContact
from crm_pipeline.store.intents import Intent
from crm_pipeline.store.ledger import Change
from crm_pipeline.store.links import Link
from crm_pipeline.store.rejects import NewReject
from crm_pipeline.sync.context import Context
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import Values
from crm_pipeline.sync.noticing import notice
from crm_pipeline.sync.plan import PlannedWrite, plan_write, to_write
from crm_pipeline.sync.reports import Outcome
from crm_pipeline.sync.spellings import SECOND_SPELLING, twins

DELETED_THERE = "the record was deleted in the CRM"
ARCHIVED = "the contact is archived"
RECORD_LEFT = "select.inward, or a hook, leaves the record out"
NOT_SELECTED = "select.outward leaves the contact out"


class IntendedWrite(NamedTuple):  # a frozen dataclass takes three times as long to make
    """A stored intent, and the call that carries it out."""

    intent: Intent
    write: Write
    full_keys: frozenset[str]
    """Keys a full record has: an answer with fewer shows only a part of it."""


@dataclass(slots=True)
class Batch:
    """What was decided for a batch of contacts."""

    writes: list[IntendedWrite] = field(default_factory=list)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    """Of contacts that need no write, or cannot be written."""
    left_out: set[str] = field(default_factory=set)
    """Why contacts were skipped."""
    links: dict[str, Link] = field(default_factory=dict)
    """Of the contacts that are written and have one, as it stands when the intents are stored."""
    waiting: int = 0
    """Contacts left for a later run, because the end of an earlier write is unknown."""


def intend(context: Context, tx: Transaction, keys: Sequence[str]) -> Batch:
    """Decide for each contact, and store the intents of those that need a write."""
    planner = _Planner(context, tx, keys)
    # Held until the intents are stored: the plan must be of the row as it stands.
    for contact in contacts.load(tx, keys).values():
        planner.decide(contact)
    planner.save()
    return planner.batch


class _Planner:
    def __init__(self, context: Context, tx: Transaction, keys: Sequence[str]) -> None:
        self.batch = Batch()
        self._context, self._tx, self._now = context, tx, context.clock()
        name = context.name
        self._links = {link.contact_id: link for link in links.load_by_contact(tx, name, keys)}
        unlinked = [key for key in keys if key not in self._links]
        self._twins = twins(tx, name, context.mapping.region, unlinked, self._now)
        self._held = ledger.open_fields(tx, name, keys)
        self._unsettled = intents.open_of(tx, name, keys)
        self._records = landing.payloads(tx, name, [link.external_id for link in self._links.values()])
        self._ids = new_ids(len(keys))
        self._settled: list[tuple[str, int]] = []
        self._refused: list[NewReject] = []
        self._cleared: list[str] = []
        self._dropped: list[str] = []
        self._news: list[Change] = []
        self._noticed: list[Link] = []

    def decide(self, contact: StoredContact) -> None:
        link = self._links.get(contact.id)
        if contact.id in self._unsettled or (link is not None and link.contact_deleted_at is not None):
            self.batch.waiting += 1
            return
        if link is not None and self._is_wanted_again(contact, link):
            self._dropped.append(link.external_id)
            link = None
        if (why := _left_out(contact, link)) is not None:
            self.batch.left_out.add(why)
            self._settle(contact, Outcome.SKIPPED)
            return
        mapping = self._context.mapping
        canonical = mapping.canonical(contact.data)
        noticed = self._notice(contact, link, canonical[0]) if link is not None else None
        dirty = to_write(mapping, canonical[0], noticed, self._held.get(contact.id, ()))
        try:
            planned = self._plan(contact, link, canonical, dirty)
        except RecordRejected as rejected:
            self._settle(contact, Outcome.REJECTED)
            self._refused.append(NewReject("push", contact.id, rejected.reasons))
            return
        if isinstance(planned, Outcome):
            if planned is Outcome.SKIPPED:
                self.batch.left_out.add(NOT_SELECTED)
            self._settle(contact, planned)
        else:
            self.batch.writes.append(self._intended(planned))
            if link is not None:
                self.batch.links[contact.id] = link

    def _is_wanted_again(self, contact: StoredContact, link: Link) -> bool:
        """Whether somebody took the contact out of the archive, though its record is deleted."""
        archives = self._context.connection.deletes.policy == "archive"
        return archives and link.external_deleted_at is not None and contact.archived_at is None

    def save(self) -> None:
        tx, name, run_id = self._tx, self._context.name, self._context.run_id
        intents.store(tx, name, [planned.intent for planned in self.batch.writes], run_id)
        contacts.mark_pushed(tx, self._settled)
        links.delete(tx, name, self._dropped)
        links.note_edits(tx, name, self._noticed)
        ledger.write_changes(tx, name, self._news, run_id)
        rejects.write(tx, name, self._refused, run_id, self._now)
        rejects.clear(tx, name, "push", self._cleared)

    def _settle(self, contact: StoredContact, outcome: Outcome) -> None:
        self.batch.outcomes[outcome] += 1
        self._settled.append((contact.id, contact.row_version))
        if outcome is not Outcome.REJECTED:
            self._cleared.append(contact.id)

    def _notice(self, contact: StoredContact, link: Link, values: Values) -> list[str]:
        """Write down what other programs changed; what of it the CRM has to hear of."""
        noticed = notice(self._context.mapping, contact.id, values, link, contact.updated_at)
        if noticed.edits != link.edits:
            link.edits = noticed.edits
            self._noticed.append(link)
        self._news.extend(noticed.news)
        for name, conflict in self._held.get(contact.id, {}).items():
            if values.get(name) != conflict.internal:
                ledger.show_internal(self._tx, conflict.id, values.get(name))
        return noticed.to_push

    def _plan(
        self,
        contact: StoredContact,
        link: Link | None,
        canonical: tuple[Values, dict[str, str]],
        dirty: Sequence[str],
    ) -> PlannedWrite | Outcome:
        if contact.id in self._twins:
            raise RecordRejected({"id": SECOND_SPELLING})
        record = self._records.get(link.external_id) if link is not None else None
        return plan_write(
            self._context.mapping,
            self._context.translator,
            contact.id,
            contact.row_version,
            canonical,
            link,
            dirty,
            jsonio.loads(record) if record is not None else None,
        )

    def _intended(self, planned: PlannedWrite) -> IntendedWrite:
        intent = Intent(
            id=next(self._ids),
            contact_id=planned.contact_id,
            external_id=planned.external_id,
            before=planned.before,
            sent=planned.sent,
            contact_version=planned.contact_version,
            created_at=self._now,
        )
        write = Write(intent.id, planned.external_id, planned.payload, expected=planned.expected)
        return IntendedWrite(intent, write, planned.shown)


def _left_out(contact: StoredContact, link: Link | None) -> str | None:
    """Why nothing is written for a contact, whatever it holds; None where it takes part."""
    if link is not None and link.external_deleted_at is not None:
        return DELETED_THERE
    if contact.archived_at is not None:
        return ARCHIVED
    return RECORD_LEFT if link is not None and link.left_at is not None else None
