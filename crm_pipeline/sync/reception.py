"""Reception: webhooks land, all that come together in one transaction, and each gets its receipt."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.engine import Engine

from crm_pipeline import jsonio
from crm_pipeline.connection import Connection
from crm_pipeline.store import rejects, webhooks
from crm_pipeline.store.engine import writing
from crm_pipeline.store.rejects import NewReject
from crm_pipeline.store.webhooks import NewEvent, StoredEvent
from crm_pipeline.sync.context import Clock
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.events import hear
from crm_pipeline.sync.mapping import FieldMapping, Translator, Values
from crm_pipeline.sync.settle import Settler
from crm_pipeline.sync.workset import Workset

Action: TypeAlias = Literal["created", "updated", "unchanged", "skipped", "rejected", "conflict"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A webhook's object, its secret removed."""

    payload: dict[str, Any]
    event_id: str | None
    """The sender's name for the event; the same name is the same event."""
    request_id: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to one arrival. It is durable when it is given."""

    event_id: str
    user_id: str | None
    action: Action
    """What applying it does to the contact as it is now; ``conflict``: the id named another body."""
    status: Literal["landed", "applied", "rejected"]
    duplicate: bool = False
    reasons: dict[str, str] = field(default_factory=dict)


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
            desk = _Desk(self, tx, read)
            receipts = [desk.take(each) for each in read]
            webhooks.insert(tx, self.connection.name, desk.new)
            rejects.write(tx, self.connection.name, desk.rejects, "", self.clock())
        return receipts

    def _read(self, arrival: Arrival) -> _Read:
        text = jsonio.dumps(arrival.payload)
        values: Values | None = None
        reasons: dict[str, str] = {}
        try:
            values = self.translator.to_contact(arrival.payload)
        except RecordRejected as rejected:
            reasons = rejected.reasons
        identity = (values or {}).get("id")
        return _Read(
            arrival,
            text,
            jsonio.content_hash(text),
            values,
            reasons,
            identity if isinstance(identity, str) else None,
            _record_id(self.connection, arrival.payload),
        )


@dataclass(frozen=True, slots=True)
class _Read:
    """An arrival, understood as far as it can be."""

    arrival: Arrival
    text: str
    digest: str
    values: Values | None
    reasons: dict[str, str]
    identity: str | None
    external_id: str | None


class _Desk:
    """Takes the arrivals of one transaction."""

    def __init__(self, reception: Reception, tx: Transaction, read: Sequence[_Read]) -> None:
        name, self.now = reception.connection.name, reception.clock()
        named = [each.arrival.event_id for each in read if each.arrival.event_id is not None]
        identities = {each.identity for each in read if each.identity is not None}
        self._known = webhooks.by_event_id(tx, name, named)
        self._newest = webhooks.newest_of(tx, name, identities)
        work = Workset(tx, name, reception.mapping)
        work.load([each.external_id for each in read if each.external_id], identities, self.now, lock=False)
        self._settler = Settler(work, reception.mapping, reception.connection, self.now)
        self._read_back = reception.connection.webhook.read_back
        self.new: list[NewEvent] = []
        self.rejects: list[NewReject] = []

    def take(self, read: _Read) -> Receipt:
        """Decide on one arrival."""
        known = self._known.get(read.arrival.event_id or "")
        if known is None and read.arrival.event_id is None and read.identity is not None:
            newest = self._newest.get(read.identity)
            known = newest if newest is not None and newest.content_hash == read.digest else None
        if known is not None:
            return _again(known, read)
        event_id = read.arrival.event_id or uuid.uuid4().hex
        action, reasons = self._action(read)
        self._keep(read, event_id, action, reasons)
        status: Literal["landed", "rejected"] = "rejected" if action == "rejected" else "landed"
        return Receipt(event_id, read.identity, action, status, reasons=reasons)

    def _action(self, read: _Read) -> tuple[Action, dict[str, str]]:
        """What applying it would do now; nothing of it is saved."""
        if self._read_back and read.external_id is not None:
            return "updated", {}
        if read.reasons:
            return "rejected", read.reasons
        if read.values is None:
            return "skipped", {}
        try:
            outcome = hear(self._settler, read.values, read.external_id, self.now, None, None)
        except RecordRejected as rejected:
            return "rejected", rejected.reasons
        return outcome.value, {}

    def _keep(self, read: _Read, event_id: str, action: Action, reasons: dict[str, str]) -> None:
        event = NewEvent(
            event_id,
            read.arrival.request_id,
            self.now,
            read.text,
            read.digest,
            read.identity,
            read.external_id,
            action,
            reasons,
        )
        self.new.append(event)
        stored = StoredEvent(
            event_id, read.digest, read.identity, action, None, reasons, self.now, None, 0, None
        )
        self._known[event_id] = stored
        if read.identity is not None:
            self._newest[read.identity] = stored
        if action == "rejected":
            self.rejects.append(NewReject("webhook", event_id, reasons))


def _again(known: StoredEvent, read: _Read) -> Receipt:
    """The same event answers the same; the same name with another body is a mistake of the sender."""
    if known.content_hash != read.digest:
        return Receipt(known.event_id, read.identity, "conflict", "rejected", duplicate=True)
    status: Literal["landed", "applied", "rejected"] = "landed"
    if known.action == "rejected" or known.outcome == "rejected":
        status = "rejected"
    elif known.outcome is not None:
        status = "applied"
    action: Any = known.action
    return Receipt(
        known.event_id, known.contact_id, action, status, duplicate=True, reasons=known.reasons or {}
    )


def _record_id(connection: Connection, payload: dict[str, Any]) -> str | None:
    for path in connection.records.id:
        value = payload.get(path)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
            return str(value)
    return None
