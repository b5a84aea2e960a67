"""Reading back: events that only name a record are answered by the record as it is now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from crm_pipeline.connectors.base import (
    AccessRefusedError,
    ConnectorError,
    ConnectorSetupError,
    CrmUnavailableError,
)
from crm_pipeline.store import landing, links, webhooks
from crm_pipeline.store.webhooks import LandedEvent
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


def wait_for_crm(context: Context, rows: Sequence[LandedEvent], error: ConnectorError) -> None:
    """Nothing came of reading what these events name: is it the CRM, or is it they?

    Where the CRM is away, their attempt does not count, and all wait that it would be asked for:
    the longer the oldest has waited, the longer.

    Raises:
        ConnectorError: it is away.
    """
    if not _is_away(context, [row.external_id for row in rows if row.external_id is not None], error):
        return
    now = context.clock()
    with context.write() as tx:
        oldest = webhooks.unapplied(tx, context.name).oldest_at or now
        rest = min(max((now - oldest) / 2, FIRST_RETRY), LONGEST_REST)
        webhooks.take_back_attempt(tx, [row.id for row in rows])
        webhooks.postpone_all_about_records(tx, context.name, now + rest)
    raise error


def _is_away(context: Context, named: Sequence[str], error: ConnectorError) -> bool:
    """Whether it cannot be asked for anything: one that it is known to have tells, drawn by lot.

    Where none is known, one that another event names; and where there is no other, the error has to tell.
    """
    besides = named if len(named) == 1 else ()  # of several, only some may be what cannot be read
    with context.read() as tx:
        other = links.some_record(tx, context.name, besides) or webhooks.some_record(
            tx, context.name, besides
        )
    if other is None:
        return isinstance(error, _AWAY)
    try:
        context.connector.read([other])
    except ConnectorError:
        return True
    return False
