"""The working set of one batch: everything its records touch, loaded once and saved once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection as Transaction

from crm_pipeline.store import contacts, intents, landing, ledger, links, rejects
from crm_pipeline.store.contacts import ContactWrite, StoredContact
from crm_pipeline.store.intents import Intent
from crm_pipeline.store.ledger import Change, Conflict, LedgerEntry
from crm_pipeline.store.links import Link
from crm_pipeline.store.rejects import NewReject
from crm_pipeline.sync.coerce import Value
from crm_pipeline.sync.mapping import FieldMapping, Values
from crm_pipeline.sync.spellings import note_odd_spellings


@dataclass(slots=True)
class Contact:
    """A contact as this batch leaves it."""

    key: str
    """Its id as stored."""
    values: Values
    """Canonical, by field."""
    stored: StoredContact | None
    """None: this batch makes it."""
    changed: dict[str, Value] = field(default_factory=dict)
    archived_at: datetime | None = None
    to_push: bool | None = None
    """Whether the CRM has to hear of it; None: this batch did not find out."""

    @property
    def key_after(self) -> str:
        """Its id as this batch leaves it."""
        return str(self.changed.get("id", self.key))

    def set(self, name: str, value: Value) -> None:
        """Give a field a value."""
        self.values[name] = value
        self.changed[name] = value


class Workset:
    """Contacts, links, intents and held fields of one batch, and what it will write."""

    def __init__(self, tx: Transaction, connection: str, mapping: FieldMapping) -> None:
        """Start empty."""
        self._tx = tx
        self._connection = connection
        self._mapping = mapping
        self._contacts: dict[str, Contact] = {}
        self._aliases: dict[str, str] = {}
        self._links: dict[str, Link] = {}
        self._link_of: dict[str, Link] = {}
        self._new_links: dict[str, Link] = {}
        self._changed_links: dict[str, Link] = {}
        self._dropped_links: list[str] = []
        self._new_aliases: dict[str, str] = {}
        self._held: dict[str, dict[str, LedgerEntry]] = {}
        self._open_intents: dict[str, Intent] = {}
        self._confirmed: defaultdict[str, list[Intent]] = defaultdict(list)
        self.changes: list[Change] = []
        self.conflicts: list[Conflict] = []
        self.settled_conflicts: dict[int, str] = {}
        self.closed_intents: list[tuple[str, str]] = []
        self.new_rejects: list[NewReject] = []
        self.cleared_rejects: list[str] = []
        self.cleared_pushes: list[str] = []
        self.distrusted: list[str] = []
        self._freed: set[str] = set()

    def load(
        self,
        external_ids: Collection[str],
        canonical_ids: Collection[str],
        now: datetime,
        *,
        read_since: datetime | None = None,
        lock: bool = True,
    ) -> None:
        """Load what records with these ids and identities, read since a moment, may touch."""
        note_odd_spellings(self._tx, self._mapping.region, now)
        self._aliases = contacts.resolve(self._tx, canonical_ids)
        for link in links.load_by_external_id(self._tx, self._connection, external_ids):
            self._know(link)
        keys = {*canonical_ids, *self._aliases.values(), *self._link_of}
        for link in links.load_by_contact(self._tx, self._connection, keys - set(self._link_of)):
            self._know(link)
        for stored in contacts.load(self._tx, keys, lock=lock).values():
            values, _ = self._mapping.canonical(stored.data)
            self._contacts[stored.id] = Contact(stored.id, values, stored, archived_at=stored.archived_at)
        known = list(self._contacts)
        self._held = ledger.open_fields(self._tx, self._connection, known)
        self._open_intents = intents.open_of(self._tx, self._connection, known)
        if read_since is not None:
            for intent in intents.confirmed_since(self._tx, self._connection, known, read_since):
                self._confirmed[intent.contact_id].append(intent)

    def link(self, external_id: str) -> Link | None:
        """The link of a record."""
        return self._links.get(external_id)

    def link_of(self, key: str) -> Link | None:
        """The link of a contact, by its id as stored."""
        return self._link_of.get(key)

    def contact(self, key: str) -> Contact | None:
        """A contact by its id as stored."""
        return self._contacts.get(key)

    def find(self, canonical_id: str) -> Contact | None:
        """A contact by its identity, under whatever id it is stored."""
        return self._contacts.get(canonical_id) or self._contacts.get(self._aliases.get(canonical_id, ""))

    def create(self, canonical_id: str) -> Contact:
        """A new contact."""
        contact = Contact(canonical_id, {"id": canonical_id}, None)
        self._contacts[canonical_id] = contact
        return contact

    def connect(self, external_id: str, contact: Contact) -> Link:
        """A new link."""
        link = Link(external_id, contact.key)
        self._know(link)
        self._new_links[external_id] = link
        return link

    def drop(self, link: Link) -> None:
        """The contact is linked to this record no more."""
        self._dropped_links.append(link.external_id)
        for links_by_key in (self._links, self._new_links, self._changed_links):
            links_by_key.pop(link.external_id, None)
        self._link_of.pop(link.contact_id, None)
        self.free(link.external_shadow.get("id"))

    def free(self, canonical_id: Value) -> None:
        """No record shows this id any more: one that was rejected for claiming it may be it."""
        if canonical_id is not None:
            self._freed.add(str(canonical_id))

    def repoint(self, link: Link, external_id: str) -> Link:
        """The contact is another record from now on; what the old one held no longer counts."""
        self.drop(link)
        fresh = Link(external_id, link.contact_id, external_deleted_at=link.external_deleted_at)
        self._know(fresh)
        self._new_links[external_id] = fresh
        return fresh

    def rename(self, link: Link, external_id: str) -> Link:
        """The record's own id has become known."""
        self.drop(link)
        renamed = replace(link, external_id=external_id)
        self._know(renamed)
        self._new_links[external_id] = renamed
        return renamed

    def touch(self, link: Link) -> None:
        """Save this link in the end."""
        if link.external_id not in self._new_links:
            self._changed_links[link.external_id] = link

    def readdress(self, contact: Contact, canonical_id: str) -> None:
        """The contact is reached under another id; the old one stays its alias."""
        self.free(contact.values["id"])
        self._new_aliases[str(contact.values["id"])] = canonical_id
        self._aliases[str(contact.values["id"])] = contact.key
        self._aliases[canonical_id] = contact.key
        contact.set("id", canonical_id)

    def held(self, contact: Contact) -> dict[str, LedgerEntry]:
        """Fields of the contact that wait for a person."""
        return self._held.get(contact.key, {})

    def open_intent(self, contact: Contact) -> Intent | None:
        """A write to the contact's record whose end nobody knows."""
        return self._open_intents.get(contact.key)

    def confirmed_after(self, key: str, moment: datetime) -> list[Intent]:
        """Our writes to a contact's record that the CRM confirmed at or after a moment."""
        return [each for each in self._confirmed[key] if each.closed_at is None or each.closed_at >= moment]

    def save(self, run_id: str, at: datetime) -> None:
        """Write everything, in an order the keys allow."""
        tx, connection = self._tx, self._connection
        self._save_contacts(at)
        contacts.add_aliases(tx, self._new_aliases, at)
        for link in self._links.values():
            contact = self._contacts.get(link.contact_id)
            if contact is not None:
                link.contact_id = contact.key_after
        links.delete(tx, connection, self._dropped_links)
        links.insert(tx, connection, self._new_links.values())
        links.update(tx, connection, self._changed_links.values())
        ledger.write_changes(tx, connection, self.changes, run_id)
        found = [
            replace(conflict, contact_id=self._contacts[conflict.contact_id].key_after)
            for conflict in self.conflicts
        ]
        ledger.write_conflicts(tx, connection, found, run_id, at)
        for conflict_id, winner in self.settled_conflicts.items():
            ledger.settle(tx, [conflict_id], winner, at)
        intents.close(tx, self.closed_intents, at)
        landing.distrust(tx, connection, self.distrusted)
        rejects.write(tx, connection, self.new_rejects, run_id, at)
        rejects.clear(tx, connection, "pull", self.cleared_rejects)
        rejects.clear(tx, connection, "push", self.cleared_pushes)
        rejects.free(tx, connection, self._freed)

    def _save_contacts(self, at: datetime) -> None:
        new = [contact for contact in self._contacts.values() if contact.stored is None]
        contacts.insert(self._tx, [self._new_row(contact, at) for contact in new])
        writes, to_push = [], []
        for contact in self._contacts.values():
            stored = contact.stored
            if stored is None:
                continue
            values = self._columns(contact, stored)
            if values:
                pushed = contact.to_push is False and stored.pushed_version == stored.row_version
                writes.append(ContactWrite(stored.id, stored.row_version, values, pushed))
            elif contact.to_push and stored.pushed_version == stored.row_version:
                to_push.append(stored.id)
        contacts.update(self._tx, writes, at)
        contacts.mark_to_push(self._tx, to_push)

    def _new_row(self, contact: Contact, at: datetime) -> dict[str, Any]:
        row: dict[str, Any] = {**self._mapping.empty_columns, **contact.values}
        own = self._mapping.own
        custom = {name: row.pop(name) for name in own & row.keys()} if own else _NOTHING
        return {
            **row,
            "custom": custom,
            "created_at": at,
            "updated_at": at,
            "archived_at": contact.archived_at,
            "row_version": 1,
            "pushed_version": 0 if contact.to_push else 1,
        }

    def _columns(self, contact: Contact, stored: StoredContact) -> dict[str, Any]:
        """Changed columns; own fields together are the one column ``custom``."""
        columns: dict[str, Any] = {
            name: value for name, value in contact.changed.items() if self._mapping.fields[name].built_in
        }
        own = {name: value for name, value in contact.changed.items() if name not in columns}
        if own:
            columns["custom"] = {**stored.data["custom"], **own}
        if contact.archived_at != stored.archived_at:
            columns["archived_at"] = contact.archived_at
        return columns

    def _know(self, link: Link) -> None:
        self._links[link.external_id] = link
        self._link_of[link.contact_id] = link


_NOTHING: dict[str, Value] = {}


def identities(values: Iterable[Values | None]) -> set[str]:
    """Canonical ids of mapped records."""
    return {str(each["id"]) for each in values if each is not None and "id" in each}
