"""Settling one record: who it is, what merges, what is written down. The heart of ``apply``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from crm_pipeline import instants
from crm_pipeline.connection import Connection
from crm_pipeline.contact import NEW_DEAL_STATUS
from crm_pipeline.store.intents import Intent
from crm_pipeline.store.landing import Landed
from crm_pipeline.store.ledger import NOT_TAKEN, Change, Conflict, LedgerEntry
from crm_pipeline.store.links import Link
from crm_pipeline.sync.coerce import Value, same
from crm_pipeline.sync.errors import RecordRejected, UnknownConflictError
from crm_pipeline.sync.identity import is_address
from crm_pipeline.sync.mapping import FieldMapping, Values
from crm_pipeline.sync.merge import (
    ABSENT,
    CONFLICTS,
    Decision,
    FieldRules,
    FieldState,
    Side,
    Verdict,
    merge_field,
    nothing_new,
)
from crm_pipeline.sync.noticing import notice
from crm_pipeline.sync.reports import Outcome
from crm_pipeline.sync.selection import takes_part
from crm_pipeline.sync.workset import Contact, Workset

AMBIGUOUS_CONTACT = "another record of the CRM is already linked to this contact"
AMBIGUOUS_ADDRESS = "the record is linked to one contact and carries the WhatsApp id of another"
NO_IDENTITY = "the record has no usable WhatsApp id"


class News(NamedTuple):  # a frozen dataclass takes three times as long to make
    """Where a statement about a contact comes from."""

    external_id: str
    modified_at: datetime | None
    read_at: datetime
    """Our clock before it was asked for, or when it was received."""
    record_id: int | None = None
    event_id: int | None = None

    @classmethod
    def of(cls, row: Landed) -> News:
        """A landed record."""
        return cls(row.external_id, row.modified_at, row.read_at, record_id=row.id)


@dataclass(frozen=True, slots=True)
class Settler:
    """Settles records of one batch."""

    work: Workset
    mapping: FieldMapping
    connection: Connection
    now: datetime

    def settle(self, row: News, values: Values) -> Outcome:
        """Apply one mapped record to the working set.

        Raises:
            RecordRejected: it cannot be told which contact it is.
        """
        link = self.work.link(row.external_id)
        if link is None:
            return self._first_meeting(row, values)
        contact = self.work.contact(link.contact_id)
        if contact is None:
            return Outcome.SKIPPED  # deleted here, and a delete here stays here
        if not takes_part(self.connection.select.inward, values, contact.values):
            return self.leave(row)
        link.left_at = None
        if link.contact_deleted_at is not None:
            # Deleted here and made anew: the two meet for the first time again, and what the
            # new contact does not say is no order to clear it in the CRM.
            link.internal_shadow, link.external_shadow, link.contact_deleted_at = {}, {}, None
        self._check_address(contact, values)
        return self._merge(row, self._without_own_past(row, link, values), contact, link)

    def leave(self, row: News) -> Outcome:
        """A rule or a hook leaves the record out: its contact, if it has one, keeps what it has."""
        link = self.work.link(row.external_id)
        if link is not None and link.left_at is None:
            link.left_at = self.now
            self.work.touch(link)
        return Outcome.SKIPPED

    def hear(self, row: News, values: Values, *, names_record: bool) -> Outcome:
        """Apply what a webhook says. It may be late, partial, or name only the contact.

        Raises:
            RecordRejected: it cannot be told which contact it is.
        """
        link = self.work.link(row.external_id)
        contact = self.work.find(str(values.get("id", ""))) if not names_record else None
        if link is None and contact is not None:
            link = self.work.link_of(contact.key)
            if link is not None:
                # Its number says who is meant, maybe an earlier one; it is no order to change it back.
                values = {name: value for name, value in values.items() if name != "id"}
        if link is None:
            return self.settle(row, values)
        if _is_late(row, link):
            return Outcome.UNCHANGED
        # The CRM may not hold what the event said: the next reading is looked at, whatever it shows.
        self.work.distrusted.append(link.external_id)
        return self.settle(row._replace(external_id=link.external_id), values)

    def _without_own_past(self, row: News, link: Link, values: Values) -> Values:
        """Leave out what is only said of the time before our own write reached the CRM.

        An event may be late, and a record that landed before the write may be applied once more.
        """
        past = {
            name
            for intent in self.work.confirmed_after(link.contact_id, row.read_at)
            for name, before in intent.before.items()
            if name in values and same(values[name], before)
        }
        if past:
            # By our clock, which may have been set back meanwhile: the next reading is looked at.
            self.work.distrusted.append(link.external_id)
        return {name: value for name, value in values.items() if name not in past}

    def delete(self, row: News) -> Outcome:
        """The record was deleted in the CRM: its contact is archived, never dropped."""
        link = self.work.link(row.external_id)
        contact = self.work.contact(link.contact_id) if link is not None else None
        if link is None:
            return Outcome.UNCHANGED
        if self.work.confirmed_after(link.contact_id, row.read_at):
            # It took a write of ours since: this tells of earlier, or our clock was set back.
            self.work.distrusted.append(link.external_id)
            return Outcome.UNCHANGED
        if contact is None or link.contact_deleted_at is not None:
            # Deleted on both sides. One made anew here since is a contact the CRM has never had.
            self.work.drop(link)
            if contact is not None:
                contact.to_push = True
            return Outcome.UNCHANGED
        if link.external_deleted_at is not None:
            return Outcome.UNCHANGED
        for waiting in self.work.held(contact).values():
            self.work.settled_conflicts[waiting.id] = "moot"
        link.external_deleted_at = row.modified_at or row.read_at
        self.work.free(link.external_shadow.get("id"))
        self.work.touch(link)
        if self.connection.deletes.policy == "keep" or contact.archived_at is not None:
            return Outcome.UNCHANGED
        contact.archived_at = self.now
        at = instants.to_text(self.now)
        self._note(contact, "archived_at", None, at, "external", "deleted in the CRM", row)
        return Outcome.UPDATED

    def resolve(self, conflict: LedgerEntry, winner: Side) -> None:
        """A person settles one field: it becomes what that side holds, on both.

        Raises:
            UnknownConflictError: the contact or its record is gone.
        """
        contact = self.work.contact(conflict.contact_id)
        link = self.work.link_of(conflict.contact_id)
        if contact is None or link is None:
            msg = f"the contact of conflict {conflict.id} is not linked any more"
            raise UnknownConflictError(msg)
        theirs = conflict.external
        if winner == "external":
            decision = Decision(Verdict.EXTERNAL_WINS, theirs, theirs, theirs)
        else:
            decision = Decision(Verdict.INTERNAL_WINS, contact.values.get(conflict.field), theirs, theirs)
        self._take(conflict.field, decision, contact, link, None)
        contact.to_push = self._note_edits(contact, link)
        self.work.touch(link)
        self.work.settled_conflicts[conflict.id] = winner

    def _first_meeting(self, row: News, values: Values) -> Outcome:
        identity = values.get("id")
        if not isinstance(identity, str):
            raise RecordRejected({"id": NO_IDENTITY})
        contact = self.work.find(identity)
        if contact is not None and self._has_moved_on(contact, identity):
            contact = None
        if not takes_part(self.connection.select.inward, values, contact.values if contact else None):
            return Outcome.SKIPPED
        former = self.work.link_of(contact.key if contact else identity)
        if former is not None and contact is not None and is_address(former.external_id):
            # Until now nobody had told the record's own id, only whose it is.
            return self._merge(row, values, contact, self.work.rename(former, row.external_id))
        if former is not None and former.external_deleted_at is None:
            raise RecordRejected({"id": AMBIGUOUS_CONTACT}, identity)
        if contact is not None:
            # A record it was linked to and that is gone was deleted, or merged into this one: they meet anew.
            link = (
                self.work.repoint(former, row.external_id)
                if former
                else self.work.connect(row.external_id, contact)
            )
            return self._merge(row, values, contact, link)
        if former is not None:
            self.work.drop(former)
        return self._create(row, values, identity)

    def _has_moved_on(self, contact: Contact, identity: str) -> bool:
        """Whether a number is the contact's no more: its record is there, and shows another one."""
        link = self.work.link_of(contact.key)
        moved = contact.values.get("id") != identity and not identity.endswith("@lid")
        return moved and link is not None and link.external_deleted_at is None

    def _create(self, row: News, values: Values, identity: str) -> Outcome:
        contact = self.work.create(identity)
        link = self.work.connect(row.external_id, contact)
        contact.values = {"deal_status": NEW_DEAL_STATUS, **values}
        contact.to_push = False
        # The default deal status is nobody's edit: the pair counts as agreed, so that it is not pushed.
        link.internal_shadow = dict(contact.values)
        link.external_shadow = dict(values)
        link.external_modified_at = row.modified_at
        link.read_at = row.read_at
        self._note(contact, "*", None, None, "external", "created", row)
        return Outcome.CREATED

    def _check_address(self, contact: Contact, values: Values) -> None:
        identity = values.get("id")
        if not isinstance(identity, str) or identity == contact.values.get("id"):
            return
        other = self.work.find(identity)
        if other is None or other is contact:
            return
        # Who gives it up in this very batch still has it in the database: the next batch finds it free.
        if other.key == identity or not self._has_moved_on(other, identity):
            raise RecordRejected({"id": AMBIGUOUS_ADDRESS}, identity)

    def _merge(self, row: News, values: Values, contact: Contact, link: Link) -> Outcome:
        intent = self.work.open_intent(contact)
        sent: Mapping[str, Value] = intent.sent if intent is not None else {}
        arrived = True
        before, shown = dict(contact.changed), link.external_shadow.get("id")
        looked_at = {*sent, *link.assumed, *self.work.held(contact)}
        for name, field in self.mapping.fields.items():
            external, internal = values.get(name, ABSENT), contact.values.get(name)
            shadows = link.external_shadow.get(name, ABSENT), link.internal_shadow.get(name, ABSENT)
            if name not in looked_at and nothing_new(external, internal, *shadows):
                continue  # most fields of most records, a tenth of the time
            state = FieldState(
                external=external,
                internal=internal,
                external_shadow=shadows[0],
                internal_shadow=shadows[1],
                assumed=name in link.assumed,
                replaced=link.assumed[name][0] if name in link.assumed else ABSENT,
                untouched=_is_untouched(row, link, name),
                sent=sent.get(name, ABSENT),
                external_at=row.modified_at or row.read_at,
                internal_at=self._edited_at(contact, link, name, intent),
            )
            rules = FieldRules(
                field.direction,
                field.policy,
                self.connection.merge.tie,
                timedelta(seconds=self.connection.merge.clock_tolerance_seconds),
            )
            decision = merge_field(state, rules)
            if name in sent and decision.verdict not in _ARRIVED:
                arrived = False
            if external is not ABSENT:
                self._carry_out(name, state, decision, contact, link, row)
        contact.to_push = self._note_edits(contact, link)
        if not contact.to_push:
            self.work.cleared_pushes.append(contact.key)
        link.external_modified_at = row.modified_at or link.external_modified_at
        link.read_at = max(row.read_at, link.read_at or row.read_at)
        restored = self._restore(contact, link, row)
        self.work.touch(link)
        if intent is not None and (arrived or intent.external_id is None):
            self.work.closed_intents.append((intent.id, "confirmed"))
        if link.external_shadow.get("id") != shown:
            self.work.free(shown)
        return Outcome.UPDATED if restored or contact.changed != before else Outcome.UNCHANGED

    def _restore(self, contact: Contact, link: Link, row: News) -> bool:
        """A record that is there again brings its archived contact back."""
        if link.external_deleted_at is None:
            return False
        link.external_deleted_at = None
        if contact.archived_at is None:
            return False
        was = instants.to_text(contact.archived_at)
        self._note(contact, "archived_at", was, None, "external", "there again in the CRM", row)
        contact.archived_at = None
        return True

    def _carry_out(
        self, name: str, state: FieldState, decision: Decision, contact: Contact, link: Link, row: News
    ) -> None:
        waiting = self.work.held(contact).get(name)
        if decision.verdict in CONFLICTS:
            policy = self.mapping.fields[name].policy
            if waiting is not None and decision.winner is not None:
                self.work.settled_conflicts[waiting.id] = decision.winner  # the policy is another by now
            self.work.conflicts.append(
                Conflict(
                    contact.key,
                    name,
                    None if state.external is ABSENT else state.external,
                    contact.values.get(name),
                    NOT_TAKEN if decision.verdict in _OUR_WRITE_IS_GONE else policy.value,
                    decision.winner,
                    row.record_id,
                )
            )
        elif waiting is not None:
            self.work.settled_conflicts[waiting.id] = "agreed"
        self._take(name, decision, contact, link, row)

    def _take(self, name: str, decision: Decision, contact: Contact, link: Link, row: News | None) -> None:
        """Give link and contact what was decided."""
        _store_shadow(link.internal_shadow, name, decision.internal_shadow)
        _store_shadow(link.external_shadow, name, decision.external_shadow)
        if name in link.assumed and not decision.assumed:
            del link.assumed[name]
        old = contact.values.get(name)
        if decision.internal is ABSENT or old == decision.internal:
            return
        self._note(contact, name, old, decision.internal, "external", decision.verdict.value, row)
        if name == "id":
            self.work.readdress(contact, str(decision.internal))
        else:
            contact.set(name, decision.internal)

    def _edited_at(self, contact: Contact, link: Link, name: str, intent: Intent | None) -> datetime:
        """When the contact's value was changed, as near as it is known: never later than it was sent."""
        value = contact.values.get(name)
        noticed = link.edits.get(name)
        if noticed is not None and noticed[0] == value:
            return instants.from_text(noticed[1])
        at = contact.stored.updated_at if contact.stored is not None else self.now
        if intent is not None and name in intent.sent and same(value, intent.sent[name]):
            return min(at, intent.created_at)
        return at

    def _note_edits(self, contact: Contact, link: Link) -> bool:
        """Write down what other programs changed; whether the CRM has to hear of it."""
        at = contact.stored.updated_at if contact.stored is not None else self.now
        noticed = notice(self.mapping, str(contact.values["id"]), contact.values, link, at)
        link.edits = noticed.edits
        self.work.changes.extend(noticed.news)
        return bool(noticed.to_push)

    def _note(
        self,
        contact: Contact,
        name: str,
        old: Value,
        new: Value,
        side: str,
        rule: str,
        row: News | None,
    ) -> None:
        self.work.changes.append(
            Change(
                str(contact.values["id"]),
                name,
                old,
                new,
                self.now,
                side,
                rule,
                row.record_id if row else None,
                row.event_id if row else None,
            )
        )


_OUR_WRITE_IS_GONE = frozenset({Verdict.NOT_TAKEN, Verdict.TAKEN_BACK})
_ARRIVED = frozenset({Verdict.WRITE_CONFIRMED, Verdict.REWRITTEN})


def _is_late(row: News, link: Link) -> bool:
    """Whether more is known already than an event can say."""
    if row.modified_at is not None and link.external_modified_at is not None:
        return row.modified_at < link.external_modified_at
    return link.read_at is not None and row.read_at <= link.read_at


def _is_untouched(row: News, link: Link, name: str) -> bool:
    """Whether the CRM's own times say that nobody has touched the record since we wrote a field."""
    _, written_at = link.assumed.get(name, (None, None))
    return bool(written_at and row.modified_at and row.modified_at <= instants.from_text(written_at))


def _store_shadow(shadow: dict[str, Value], name: str, value: object) -> None:
    if value is not ABSENT:
        shadow[name] = value  # type: ignore[assignment]
