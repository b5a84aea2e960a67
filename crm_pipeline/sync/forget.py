"""Forgetting: a person leaves no copy behind, and no sync brings one back.

Digests of the person's ids are kept, so that the record is left alone if the CRM lists it
again. Who is put into ``contacts`` again by another program is known again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy.engine import Connection as Transaction

from crm_pipeline import jsonio
from crm_pipeline.store import contacts, forgotten, landing, links, observations, state, webhooks
from crm_pipeline.sync import sample
from crm_pipeline.sync.context import Context
from crm_pipeline.sync.spellings import canonical_ids


def forget(context: Context, contact_ids: Collection[str]) -> int:
    """Remove everything that is kept of a person; how many rows.

    ``contact_ids``: all ids the person is or was known by, in every spelling that is stored.
    """
    with context.write() as tx:
        ids = contacts.all_ids(tx, contact_ids)
        records = {link.external_id for link in links.load_by_contact(tx, context.name, ids)}
        records |= _naming(context, ids, landing.each_payload(tx, context.name))
        events = _naming(context, ids, webhooks.each_payload(tx, context.name))
        erased = forgotten.erase(tx, context.name, ids, records | events)
        if erased:
            forgotten.remember(tx, context.name, ids | records)
            observations.forget(tx, context.name, sample.NAME)  # it goes on by records' ids
    return erased


def readmit(context: Context) -> bool:
    """People whom another program put into ``contacts`` again are known again; whether there were any.

    Their records were left alone meanwhile, so that the next pull has to read everything.
    """
    with context.read() as tx:
        again = _put_in_again(tx, context)
    if not again:
        return False
    with context.write() as tx:
        forgotten.readmit(tx, context.name, again)
        state.save(tx, context.name, watermark=None, pull=None)
    return True


def _put_in_again(tx: Transaction, context: Context) -> set[str]:
    if not forgotten.any_of(tx, context.name):
        return set()
    unlinked = contacts.unlinked_ids(tx, context.name)
    return forgotten.among(tx, context.name, canonical_ids(unlinked, context.mapping.region).values())


def _naming(context: Context, ids: Collection[str], payloads: Iterable[tuple[str, str]]) -> set[str]:
    """Names of those whose payload names the person, linked or not."""
    return {name for name, text in payloads if context.mapping.whose(jsonio.loads(text)) in ids}
