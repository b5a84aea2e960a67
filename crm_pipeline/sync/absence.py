"""Absence: records a complete reading no longer listed, confirmed one by one before they count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from crm_pipeline.store import contacts, landing, links, rejects
from crm_pipeline.sync.arrivals import arrivals, tombstone
from crm_pipeline.sync.context import Context


class Seen:
    """Which landed records a reading listed: one bit for each row there was when it began.

    Only the worker that reads lands records of its connection: all later rows came with the reading.
    """

    def __init__(self, last_row: int) -> None:
        """Nothing listed yet; ``last_row`` is the highest row that has landed."""
        self.last_row = last_row
        self._bits = bytearray(last_row // 8 + 1)

    def add(self, rows: Iterable[int]) -> None:
        """The records of these rows were listed."""
        for row in rows:
            if row <= self.last_row:
                self._bits[row >> 3] |= 1 << (row & 7)

    def __contains__(self, row: int | None) -> bool:
        """Whether the record whose current row this is was listed."""
        if row is None:
            return False
        return row > self.last_row or bool(self._bits[row >> 3] & 1 << (row & 7))


def note_absent(context: Context, seen: Seen) -> None:
    """Land a tombstone for each linked record that is really gone; forget rejects of such records.

    Asking for each by its id tells a deleted record from one that a listing left out, and
    from one that was merged into another, which answers under the other's id.

    Raises:
        ConnectorError: the CRM could not be asked.
    """
    # Looked up before any is asked for: what answers lands, and would count as listed.
    with context.read() as tx:
        linked = landing.linked_rows(tx, context.name, seen.last_row)
        missing = [external_id for external_id, row in linked if row not in seen]
        rejected = [reject for reject in rejects.load(tx, context.name) if reject.source == "pull"]
        current = landing.current_rows(tx, context.name, [reject.key for reject in rejected])
        gone = [reject.id for reject in rejected if current.get(reject.key) not in seen]
    ask(context, missing)
    with context.write() as tx:
        rejects.dismiss(tx, context.name, gone, context.clock())


_ASKED_TOGETHER = 100


def ask_for_rivals(context: Context, since: datetime | None, until: datetime) -> None:
    """A record waits because another is linked to its contact: is that one still there?

    Only what was rejected since the last pull began, and before this one did, is asked for; reading
    everything sees the rest.

    Raises:
        ConnectorError: the CRM could not be asked.
    """
    with context.read() as tx:
        claimed = [
            reject.contact_id
            for reject in rejects.load(tx, context.name)
            if reject.contact_id is not None
            and (since is None or reject.last_at >= since)
            and reject.last_at < until
        ]
        keys = {*claimed, *contacts.resolve(tx, claimed).values()}
        rivals = [link.external_id for link in links.load_by_contact(tx, context.name, keys)]
    ask(context, rivals)


def ask(context: Context, external_ids: Sequence[str]) -> None:
    """Land each record as it is now, or a tombstone.

    Raises:
        ConnectorError: the CRM could not be asked.
    """
    for start in range(0, len(external_ids), _ASKED_TOGETHER):
        asked = external_ids[start : start + _ASKED_TOGETHER]
        read_at = context.clock()
        found = context.connector.read(asked)
        there = {record.external_id for record in found}
        lost = [external_id for external_id in asked if external_id not in there]
        with context.write() as tx:
            landing.land(tx, context.name, arrivals(context, found, read_at), context.run_id)
            landing.land(tx, context.name, [tombstone(each, read_at) for each in lost], context.run_id)
