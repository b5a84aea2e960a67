"""Reading back: events that only name a record are answered by the record as it is now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple

from crm_pipeline.connectors.base import (
    AccessRefusedError,
    ConnectorError,
    ConnectorSetupError,
    CrmUnavailableError,
)
from crm_pipeline.store import landing, links, webhooks
from crm_pipeline.sync.absence import ask
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.context import Context
from crm_pipeline.sync.errors import TooManyDeletesError
from crm_pipeline.sync.reports import Outcome

FIRST_RETRY = timedelta(seconds=30)
LONGEST_REST = timedelta(minutes=10)
"""For events that wait for a CRM that is away."""
_AWAY = (CrmUnavailableError, AccessRefusedError, ConnectorSetupError)
"""Failures that may have nothing to do with what was asked for."""


class ReadBack(NamedTuple):
    """What became of records that events name."""

    became: dict[str, Outcome]
    """Those that were news; for all others there was nothing to do."""
    held: frozenset[str] = frozenset()
    """Deleted, but too many at once: they wait for somebody's leave."""
    too_many: TooManyDeletesError | None = None


def read_back(context: Context, named: Sequence[str]) -> ReadBack:
    """Read these records, and apply them.

    Raises:
        ConnectorError: the CRM cannot be asked now.
    """
    with context.read() as tx:
        before = landing.standings(tx, context.name, named)
    ask(context, named)
    too_many = None
    try:
        apply_landed(context)
    except TooManyDeletesError as error:
        too_many = error
    with context.read() as tx:
        after = landing.standings(tx, context.name, named)
    became = {
        name: Outcome(now.outcome)
        for name, now in after.items()
        if now.outcome is not None
        and (name not in before or before[name].id != now.id or before[name].outcome is None)
    }
    held = frozenset(name for name, now in after.items() if now.outcome is None)
    return ReadBack(became, held, too_many)


def is_away(context: Context, named: Collection[str], error: ConnectorError) -> bool:
    """Nothing came of reading these records: is it the CRM, or is it they?

    Others tell, drawn by lot: one that is linked, and one that another event names. Where there is
    no other, several go on one by one, and of one alone the error has to tell.
    """
    with context.read() as tx:
        others = {store.some_record(tx, context.name, named) for store in (links, webhooks)} - {None}
    if not others:
        return len(named) == 1 and isinstance(error, _AWAY)
    return not any(_can_read(context, other) for other in others if other is not None)


def _can_read(context: Context, external_id: str) -> bool:
    try:
        context.connector.read([external_id])
    except ConnectorError:
        return False
    return True


def put_off(context: Context, tried: Iterable[Sequence[int]]) -> None:
    """The CRM is away: attempts of these rows do not count, and all wait that it would be asked for.

    The longer the oldest has waited, the longer.
    """
    now = context.clock()
    with context.write() as tx:
        oldest = webhooks.unapplied(tx, context.name).oldest_at or now
        rest = min(max((now - oldest) / 2, FIRST_RETRY), LONGEST_REST)
        for row_ids in tried:
            webhooks.take_back_attempt(tx, row_ids)
        webhooks.postpone_all_about_records(tx, context.name, now + rest)
