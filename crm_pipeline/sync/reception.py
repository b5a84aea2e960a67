"""Reception: webhooks land, all that come together in one transaction, and each gets its receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, NamedTuple, TypeAlias

from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.engine import Engine

from crm_pipeline import jsonio
from crm_pipeline.connection import Connection
from crm_pipeline.connectors.records import key_at
from crm_pipeline.ids import new_id
from crm_pipeline.store import forgotten, rejects, webhooks
from crm_pipeline.store.engine import writing
from crm_pipeline.store.links import Link
from crm_pipeline.store.rejects import NewReject
from crm_pipeline.store.webhooks import NewEvent, StoredEvent
from crm_pipeline.sync.context import Clock
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.events import hear
from crm_pipeline.sync.mapping import FieldMapping, Translator, Values
from crm_pipeline.sync.settle import Settler
from crm_pipeline.sync.workset import Workset

Action: TypeAlias = Literal["created", "updated", "unchanged", "skipped", "rejected", "conflict"]
Status: TypeAlias = Literal["landed", "applied", "rejected"]
_EFFECTS = frozenset({"created", "updated"})


class Arrival(NamedTuple):
    """A webhook's object, its secret removed."""

    payload: dict[str, Any]
    event_id: str | None
    """The sender's name for the event; the same name is the same event."""
    request_id: str
    record_id: str | None = None
    """The record it is about, where the format of the sender says so."""
    ours: bool = True
    """False for an event about something that is no contact: it is kept, and skipped."""
    refused: Mapping[str, str] = {}
    """Why it was refused before it came here: it is kept, as rejected."""


class Receipt(NamedTuple):
    """The answer to one arrival. It is durable when it is given."""

    event_id: str
    user_id: str | None
    action: Action
    """What applying it does to the contact as it is now; ``conflict``: the id named another body."""
    status: Status
    duplicate: bool = False
    reasons: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Reception:
    """What receiving needs: it holds no lease and talks to no CRM."""

    engine: Engine
    connection: Connection
    mapping: FieldMapping
    translator: Translator
    clock: Clock

    def receive(self, arrivals: Sequence[Arrival]) -> list[Receipt]:
        """Land arrivals, all in one transaction; one receipt each, in order."""
        read = [self._read(arrival) for arrival in arrivals]
        with writing(self.engine) as tx:
            # Two processes that are sent the same event at once would both find that it is new.
            webhooks.wait_for_turn(tx, self.connection.name)
            desk = _Desk(self, tx, read)
            receipts = [desk.take(each, number) for number, each in enumerate(read)]
            webhooks.insert(tx, self.connection.name, desk.new)
            rejects.write(tx, self.connection.name, desk.rejects, "", self.clock())
        return receipts

    def _read(self, arrival: Arrival) -> _Read:
        text = jsonio.dumps(arrival.payload)
        record_id, wrong = arrival.record_id, dict[str, str]()
        if record_id is None:
            own = self.connection.webhook.id
            paths = self.connection.records.id if own is None else (own,)
            record_id, wrong = key_at(arrival.payload, paths)
        reasons = {**arrival.refused, **wrong} if arrival.ours else dict(arrival.refused)
        wanted = arrival.ours and not reasons
        hint = wanted and self.connection.webhook.read_back and record_id is not None
        values: Values | None = None
        if wanted and not hint:
            try:
                values = self.translator.to_contact(arrival.payload)
            except RecordRejected as rejected:
                reasons = rejected.reasons
        named = (values or {}).get("id")
        identity = named if isinstance(named, str) else None
        # A hook may say another id than the record's own.
        own = identity if values and self.translator is self.mapping else self.mapping.whose(arrival.payload)
        return _Read(
            arrival,
            text,
            jsonio.content_hash(text),
            values,
            reasons,
            identity,
            record_id,
            hint,
            {name for name in (record_id, own) if name is not None},
        )


class _Read(NamedTuple):
    """An arrival, understood as far as it can be."""

    arrival: Arrival
    text: str
    digest: str
    values: Values | None
    reasons: dict[str, str]
    identity: str | None
    external_id: str | None
    hint: bool
    """What it says does not count: its record is read from the CRM when it is applied."""
    names: set[str]
    """Whatever it names somebody by."""


class _Desk:
    """Takes the arrivals of one transaction."""

    def __init__(self, reception: Reception, tx: Transaction, read: Sequence[_Read]) -> None:
        name, self._began_at = reception.connection.name, reception.clock()
        named = [each.arrival.event_id for each in read if each.arrival.event_id is not None]
        identities = {each.identity for each in read if each.identity is not None}
        self._known = webhooks.by_event_id(tx, name, named)
        work = Workset(tx, name, reception.mapping)
        work.load(
            [each.external_id for each in read if each.external_id], identities, self._began_at, lock=False
        )
        self._work = work
        about = [whose for each in read if each.identity is not None for whose in self._whose(each)]
        self._newest = webhooks.newest_of(tx, name, set(filter(None, about)))
        records = {each.external_id for each in read if each.external_id is not None}
        self._newest_about = webhooks.newest_about(tx, name, records)
        self._forgotten = forgotten.among(tx, name, {each for one in read for each in one.names})
        self._mapping = reception.mapping
        self._settler = Settler(work, reception.mapping, reception.connection, self._began_at)
        self._now = self._began_at
        self.new: list[NewEvent] = []
        self.rejects: list[NewReject] = []

    def take(self, read: _Read, number: int) -> Receipt:
        """Decide on one arrival, which is so many after the first."""
        # A moment for each: of two from one moment, the second would count as late news.
        self._now = self._began_at + timedelta(microseconds=number)
        known = self._known.get(read.arrival.event_id or "")
        same = self._same_before(read) if read.arrival.event_id is None else None
        if known is None and same is not None and self._will_be_applied(same, read):
            known = same
        if known is not None:
            return _again(known, read)
        event_id = read.arrival.event_id or new_id()
        if read.names & self._forgotten:
            return Receipt(event_id, None, "skipped", "applied")
        action, reasons, claimed = self._action(read)
        if same is not None and action not in _EFFECTS and action in {"unchanged", same.outcome}:
            return _again(same, read)
        stored = self._keep(read, event_id, action, reasons)
        if action == "rejected":
            self.rejects.append(NewReject("webhook", event_id, reasons, contact_id=claimed))
        return Receipt(event_id, stored.contact_id, action, stored.status, reasons=reasons)

    def _action(self, read: _Read) -> tuple[Action, dict[str, str], str | None]:
        """What applying it would do now, why not, and whom it claims to be; nothing of it is saved."""
        if read.reasons:
            return "rejected", read.reasons, None
        if read.hint:
            return "created" if self._link(read) is None else "updated", {}, None
        if read.values is None:
            return "skipped", {}, None
        try:
            at = self._mapping.modified_at(read.arrival.payload)
            outcome = hear(self._settler, read.values, read.external_id, self._now, at, None)
        except RecordRejected as rejected:
            return "rejected", rejected.reasons, rejected.contact_id
        return outcome.value, {}, None

    def _same_before(self, read: _Read) -> StoredEvent | None:
        """The newest event about its contact, if it said the very same."""
        if read.identity is None:
            return None
        found = [self._newest[each] for each in self._whose(read) if each in self._newest]
        if read.external_id in self._newest_about:  # it may have come under another number
            found.append(self._newest_about[read.external_id])
        newest = max(found, key=lambda event: event.received_at, default=None)
        return newest if newest is not None and newest.content_hash == read.digest else None

    def _will_be_applied(self, waiting: StoredEvent, read: _Read) -> bool:
        """Whether an event that said the same has yet to have its effect, and is no late news by now."""
        link = self._link(read)
        read_at = link.read_at if link is not None else None
        return waiting.outcome is None and (read_at is None or read_at <= waiting.received_at)

    def _link(self, read: _Read) -> Link | None:
        """The link of the record that an arrival names, or else of the contact."""
        link = self._work.link(read.external_id) if read.external_id is not None else None
        contact = self._work.find(read.identity) if link is None and read.identity is not None else None
        return link if contact is None else self._work.link_of(contact.key)

    def _whose(self, read: _Read) -> tuple[str | None, str | None]:
        """Ids, as they are now, of the contact of the record that an arrival names, and of the contact."""
        link = self._work.link(read.external_id) if read.external_id is not None else None
        linked = link.contact_id if link is not None else None
        return self._now_called(linked), self._now_called(read.identity)

    def _now_called(self, name: str | None) -> str | None:
        """The id of a contact, which may be named by an earlier number."""
        contact = self._work.find(name) if name is not None else None
        return name if contact is None else str(contact.values["id"])

    def _keep(self, read: _Read, event_id: str, action: Action, reasons: dict[str, str]) -> StoredEvent:
        outcome = action if action == "rejected" or not read.arrival.ours else None
        linked, named = self._whose(read)
        contact_id = linked or named
        event = NewEvent(
            event_id,
            read.arrival.request_id,
            self._now,
            read.text,
            read.digest,
            contact_id,
            read.external_id,
            action,
            outcome,
            reasons,
        )
        stored = StoredEvent(
            event_id, read.digest, contact_id, action, outcome, reasons, self._now, None, 0, None
        )
        self.new.append(event)
        self._known[event_id] = stored
        if contact_id is not None:
            self._newest[contact_id] = stored
        if read.external_id is not None:
            self._newest_about[read.external_id] = stored
        return stored


def _again(known: StoredEvent, read: _Read) -> Receipt:
    """The same event: what became of it. The same name with another body is a mistake of the sender."""
    if known.content_hash != read.digest:
        return Receipt(known.event_id, read.identity, "conflict", "rejected", duplicate=True)
    action: Any = known.effect
    return Receipt(
        known.event_id, known.contact_id, action, known.status, duplicate=True, reasons=known.reasons or {}
    )
