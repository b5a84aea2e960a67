"""Spellings: whose an id is that programs write in more ways than one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime

from sqlalchemy.engine import Connection as Transaction

from crm_pipeline.store import contacts, links
from crm_pipeline.sync.identity import NoIdentityError, whatsapp_id

SECOND_SPELLING = "another contact already has this number, in another spelling"


def note_odd_spellings(tx: Transaction, region: str, now: datetime) -> None:
    """Contacts other programs stored under ``+62 8…`` are known by their one id, too."""
    after = ""
    while odd := contacts.oddly_spelled(tx, after, _TOGETHER):
        found = canonical_ids(odd, region)
        taken = contacts.existing(tx, found.values())
        contacts.add_aliases(tx, {known: key for key, known in found.items() if known not in taken}, now)
        after = odd[-1]


_TOGETHER = 1000
"""Ids asked for in one query."""


def twins(
    tx: Transaction, connection: str, region: str, unlinked: Collection[str], now: datetime
) -> set[str]:
    """Of contacts that are linked to no record, those whose number another contact has already.

    The one that has it is the linked one, or else the one in the canonical spelling; it is known by
    its canonical id from now on.
    """
    spelled = canonical_ids(unlinked, region)
    if not spelled:
        return set()
    rivals = contacts.existing(tx, {*spelled.values(), *contacts.resolve(tx, set(spelled.values())).values()})
    spelled |= canonical_ids(rivals, region)
    linked = {link.contact_id for link in links.load_by_contact(tx, connection, rivals)}
    groups: dict[str, list[str]] = defaultdict(list)
    for key, known in spelled.items():
        groups[known].append(key)
    owners = {
        known: min(keys, key=lambda key: (key not in linked, key not in rivals, key != known, key))
        for known, keys in groups.items()
    }
    aliases = {known: key for known, key in owners.items() if key != known and key not in rivals}
    contacts.add_aliases(tx, aliases, now)
    return {key for key in unlinked if key in spelled and owners[spelled[key]] != key}


def adoptable(tx: Transaction, connection: str, region: str) -> dict[str, str]:
    """Contacts that were deleted and made again in another spelling: the id of then, and the id of now."""
    orphans = canonical_ids(links.orphaned(tx, connection), region)
    if not orphans:
        return {}
    unlinked = canonical_ids(contacts.unlinked_ids(tx, connection), region)
    waiting = {known: key for key, known in unlinked.items()}
    return {key: waiting[known] for key, known in orphans.items() if known in waiting}


def canonical_ids(keys: Collection[str], region: str) -> dict[str, str]:
    """The one id behind each of these; without those that are no ids at all."""
    found = {}
    for key in keys:
        try:
            found[key] = whatsapp_id(key, region)
        except NoIdentityError:
            continue
    return found
