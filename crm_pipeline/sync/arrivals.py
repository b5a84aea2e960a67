"""Arrivals: records as a connector brings them, made ready for the landing table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from crm_pipeline import jsonio
from crm_pipeline.connectors.base import Json, Record
from crm_pipeline.store.landing import Arrival
from crm_pipeline.sync.context import Context
from crm_pipeline.sync.identity import NoIdentityError, whatsapp_id


def arrivals(context: Context, records: Iterable[Record], read_at: datetime) -> Iterator[Arrival]:
    """Records that were asked for at ``read_at``, as they will be stored."""
    for record in records:
        payload = jsonio.dumps(record.payload)
        digest = jsonio.content_hash(("deleted:" if record.deleted else "") + payload)
        yield Arrival(
            external_id=record.external_id or _own_name(record.payload, context, digest),
            modified_at=record.modified_at,
            content_hash=digest,
            payload=payload,
            deleted=record.deleted,
            read_at=read_at,
        )


def tombstone(external_id: str, read_at: datetime) -> Arrival:
    """The news that a record exists no more."""
    return Arrival(external_id, None, f"deleted:{external_id}", "{}", deleted=True, read_at=read_at)


def _own_name(payload: Json, context: Context, digest: str) -> str:
    """A name for a record the CRM gives no id: its WhatsApp id, or else its very content."""
    if isinstance(payload, dict):
        for path in context.mapping.fields["id"].paths:
            raw = payload.get(path)
            if isinstance(raw, str | int) and not isinstance(raw, bool):
                try:
                    return whatsapp_id(str(raw), context.mapping.region)
                except NoIdentityError:
                    continue
    return f"content:{digest}"
