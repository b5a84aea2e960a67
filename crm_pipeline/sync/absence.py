"""Absence: records a complete reading no longer listed, confirmed one by one before they count."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import datetime

from crm_pipeline.store import landing, links, rejects
from crm_pipeline.sync.arrivals import arrivals, tombstone
from crm_pipeline.sync.context import Context


class Seen:
    """Which records a reading listed: eight bytes for each, whatever its id.

    Two ids that share their eight bytes hide a delete; they never make one up.
    """

    def __init__(self) -> None:
        """Nothing listed yet."""
        self._marks = array("Q")

    def add(self, external_ids: Iterable[str]) -> None:
        """These were listed."""
        self._marks.extend(_mark(external_id) for external_id in external_ids)

    def missing_from(self, portions: Iterable[Sequence[str]]) -> list[str]:
        """Of these ids, the ones that were not listed."""
        self._marks = array("Q", sorted(self._marks))  # a set would take ten times the room
        return [each for portion in portions for each in portion if not self._holds(_mark(each))]

    def _holds(self, mark: int) -> bool:
        place = bisect_left(self._marks, mark)
        return place < len(self._marks) and self._marks[place] == mark


def note_absent(context: Context, seen: Seen) -> None:
    """Land a tombstone for each linked record that is really gone; forget rejects of such records.

    Asking for each by its id tells a deleted record from one that a listing left out, and
    from one that was merged into another, which answers under the other's id.

    Raises:
        ConnectorError: the CRM could not be asked.
    """
    with context.read() as tx:
        missing = seen.missing_from(links.each_external_id(tx, context.name))
        rejected = {
            reject.key: reject.id for reject in rejects.load(tx, context.name) if reject.source == "pull"
        }
    ask(context, missing)
    with context.write() as tx:
        gone = [rejected[key] for key in seen.missing_from([list(rejected)])]
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
        rivals = [link.external_id for link in links.load_by_contact(tx, context.name, claimed)]
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


def _mark(external_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(external_id.encode(), digest_size=8).digest())
