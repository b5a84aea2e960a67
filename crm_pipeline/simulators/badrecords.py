"""Records no careful program may accept, and where a CRM hides them.

One record in each run of k is broken: which one and how is drawn from the seed. Every
kind is broken beyond argument, so a test may count them all as rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A broken record as it is handed out."""

    kind: str
    """Name in ``KINDS``."""
    raw: bytes
    """JSON text."""


def _with(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda record: record | fields


def _not_an_object(record: dict[str, Any]) -> str:
    return f"record {record['id']} could not be exported"


KINDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "invalid_phone": _with(phone="12345"),
    "unknown_status": _with(status="hot lead"),
    "negative_price": _with(ticket_price=-50_000),
    "price_as_words": _with(ticket_price="abc"),
    "fractional_capacity": _with(capacity=12.5),
    "impossible_date": _with(event_date="2026-02-31T09:00:00Z"),
    "unknown_task_status": _with(task_status="Someday"),
    "group_chat": _with(phone="120363000000000001@g.us"),
    "null_id": _with(id=None, phone=None),
    "not_an_object": _not_an_object,
}
"""What is wrong with a broken record. ``null_id``: it has neither a record id nor a phone."""


def break_records(
    count: int,
    every: int,
    seed: int,
    record_at: Callable[[int], dict[str, Any]],
    among: Iterable[str] = KINDS,
) -> Iterator[tuple[str, BadRecord]]:
    """Yield (id, broken form) of one record in every full run of ``every``, all kinds in turn.

    ``record_at`` gives the sound record at a position below ``count``. What is left after the last
    full run holds a broken record or none. ``among``: kinds this CRM can be broken in.
    """
    random = Random(f"bad_record:{seed}")
    possible = list(among)
    kinds = random.sample(possible, len(possible))
    for turn, start in enumerate(range(0, count, every)):
        position = start + random.randrange(every)
        if position < count:
            kind, record = kinds[turn % len(kinds)], record_at(position)
            yield record["id"], BadRecord(kind, orjson.dumps(KINDS[kind](record)))
