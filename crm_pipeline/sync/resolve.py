"""Resolving: a person settles a field both sides changed differently."""

from __future__ import annotations

from crm_pipeline.store import ledger, links
from crm_pipeline.sync.context import Context
from crm_pipeline.sync.errors import UnknownConflictError
from crm_pipeline.sync.merge import Side
from crm_pipeline.sync.settle import Settler
from crm_pipeline.sync.workset import Workset


def resolve(context: Context, conflict_id: int, winner: Side) -> None:
    """Give an open conflict's field the value of one side, as it stands now.

    The other side hears of it with the next push, or has it already.

    Raises:
        UnknownConflictError: there is no open conflict of this number.
    """
    now = context.clock()
    with context.write() as tx:
        conflict = ledger.entry(tx, context.name, conflict_id)
        if conflict is None or not conflict.open:
            msg = f"there is no open conflict {conflict_id}"
            raise UnknownConflictError(msg)
        linked = links.load_by_contact(tx, context.name, [conflict.contact_id])
        work = Workset(tx, context.name, context.mapping)
        work.load([link.external_id for link in linked], [conflict.contact_id], now)
        settler = Settler(work, context.mapping, context.connection, now)
        settler.resolve(conflict, winner)
        work.save(context.run_id, now)
