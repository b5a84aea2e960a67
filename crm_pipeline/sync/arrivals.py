"""Arrivals: pages and records as a connector brings them, made ready for the landing table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from crm_pipeline import jsonio
from crm_pipeline.connectors.base import Page, Record
from crm_pipeline.store.landing import BATCH, Arrival
from crm_pipeline.sync.context import Context


def arrivals(context: Context, records: Iterable[Record], read_at: datetime) -> Iterator[Arrival]:
    """Records that were asked for at ``read_at``, as they will be stored."""
    whose = context.mapping.whose
    for record in records:
        payload = jsonio.dumps(record.payload)
        digest = jsonio.content_hash(("deleted:" if record.deleted else "") + payload)
        yield Arrival(
            # A record the CRM gives no id goes by its WhatsApp id, or else by its very content.
            external_id=record.external_id or whose(record.payload) or f"content:{digest}",
            modified_at=record.modified_at,
            content_hash=digest,
            payload=payload,
            deleted=record.deleted,
            read_at=read_at,
            whose=whose,
        )


_MOST_PAGES = 10
"""However few records are on them: a killed worker has to read them again."""


def batches(pages: Iterable[Page]) -> Iterator[list[Page]]:
    """Pages that have come, together: as many as are worth a transaction, and none that is waited for."""
    come: list[Page] = []
    records = 0
    for page in pages:
        come.append(page)
        records += len(page.records)
        if records >= BATCH or len(come) == _MOST_PAGES or not page.followed:
            yield come
            come, records = [], 0
    if come:
        yield come


def tombstone(external_id: str, read_at: datetime) -> Arrival:
    """The news that a record exists no more."""
    return Arrival(external_id, None, f"deleted:{external_id}", "{}", deleted=True, read_at=read_at)
