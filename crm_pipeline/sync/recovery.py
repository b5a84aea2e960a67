"""Recovery: CRM writes nobody knows the end of are looked at before anything new is written.

A killed worker or a cut connection leaves an intent open: the write may have arrived or
not. The CRM itself is asked. What it shows is landed and applied like anything else;
the merge recognises our own write by the intent and learns that it arrived. Only then
may the field be written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from crm_pipeline.store import intents, landing, state
from crm_pipeline.store.intents import Intent
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.arrivals import tombstone
from crm_pipeline.sync.context import Context
from crm_pipeline.sync.look import apply_read
from crm_pipeline.sync.pull import pull_new


def recover(context: Context) -> int:
    """Settle open intents; how many could not be told and wait for a later run.

    Raises:
        ConnectorError: the CRM could not be asked; the intents stay open.
    """
    with context.read() as tx:
        waiting = intents.all_open(tx, context.name)
    if not waiting:
        return 0
    _read_back_changed(context, [intent for intent in waiting if intent.external_id is not None])
    return _find_created(context, [intent for intent in waiting if intent.external_id is None])


def _read_back_changed(context: Context, waiting: Sequence[Intent]) -> None:
    """The records exist: read them. Whatever the merge did not recognise did not arrive."""
    if not waiting:
        return
    ids = [intent.external_id for intent in waiting if intent.external_id is not None]
    read_at = context.clock()
    found = context.connector.read(ids)
    gone = set(ids) - {record.external_id for record in found}
    with context.write() as tx:
        tombstones = [tombstone(external_id, read_at) for external_id in sorted(gone)]
        landing.land(tx, context.name, tombstones, context.run_id)
    apply_read(context, found, read_at)
    _supersede(context, waiting)


def _find_created(context: Context, waiting: Sequence[Intent]) -> int:
    """The records may exist: find them by our own unique value, or by reading all that is new."""
    visible_since = context.clock() - timedelta(seconds=context.connection.listing.lag_seconds)
    unasked = []
    for intent in waiting:
        if intent.created_at > visible_since:
            continue
        read_at = context.clock()
        found = context.connector.find(str(intent.sent.get("id", intent.contact_id)))
        if not found:  # that a search shows nothing is no proof: it may know another spelling only
            unasked.append(intent)
        else:
            apply_read(context, found, read_at)
            _supersede(context, [intent])
    if unasked:
        _read_all_new(context, unasked)
    with context.read() as tx:
        return len(intents.open_of(tx, context.name, [intent.contact_id for intent in waiting]))


def _read_all_new(context: Context, waiting: Sequence[Intent]) -> None:
    """What was created shows in a complete pull that began after the write was sent."""
    if _last_read(context) <= max(intent.created_at for intent in waiting):
        pull_new(context)
    apply_landed(context)
    read_at = _last_read(context)
    _supersede(context, [intent for intent in waiting if intent.created_at < read_at])


def _last_read(context: Context) -> datetime:
    with context.read() as tx:
        known = state.load(tx, context.name)
    return known.last_read_at if known and known.last_read_at else datetime.min.replace(tzinfo=UTC)


def _supersede(context: Context, settled: Sequence[Intent]) -> None:
    """These were looked for: found and linked by now, or certainly not there."""
    with context.write() as tx:
        still_open = intents.open_of(tx, context.name, [intent.contact_id for intent in settled])
        intents.close(tx, [(intent.id, "superseded") for intent in still_open.values()], context.clock())
