"""Look before you write: what changed in the CRM since the last pull is merged, not overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from crm_pipeline.connectors.base import Record
from crm_pipeline.connectors.together import together
from crm_pipeline.store import landing, links, state
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.arrivals import arrivals
from crm_pipeline.sync.context import Context
from crm_pipeline.sync.identity import NoIdentityError, spellings, whatsapp_id
from crm_pipeline.sync.pull import pull_new


class Look:
    """Looks at what is about to be written, in the fewest calls the CRM allows."""

    def __init__(self, context: Context, total: int, *, done: bool) -> None:
        """``total``: contacts there are to look at; ``done``: all has just been pulled, none is left."""
        self._context, self._total, self._done = context, total, done

    def at(self, contacts: Sequence[str]) -> bool:
        """Bring the records of contacts up to date, and find records made meanwhile.

        Returns:
            Whether anything may have been applied.

        Raises:
            ConnectorError: the CRM could not be asked.
        """
        if self._done:
            return False
        if self._context.connector.reads_by_modified or not self._ask(contacts):
            while pull_new(self._context).resumed:
                pass  # what an interrupted one had read long ago is looked at as well
            apply_landed(self._context)
            self._done = True
        return True

    def _ask(self, contacts: Sequence[str]) -> bool:
        """Ask for single records; False where a pull takes fewer calls, or the CRM cannot be asked."""
        context = self._context
        with context.read() as tx:
            linked = links.load_by_contact(tx, context.name, contacts)
        read_at = context.clock()
        records = {link.contact_id: link.external_id for link in linked if link.external_deleted_at is None}
        names = [_spelled(context, contact) for contact in contacts if contact not in records]
        if self._is_dearer_than_a_pull(len(records) + sum(map(len, names)), len(contacts)):
            return False
        found = context.connector.read(list(records.values())) if records else []
        for same in together(partial(_find, context), names, context.connection.limits.in_flight):
            if same is None:
                return False
            found.extend(same)
        apply_read(context, found, read_at)
        return True

    def _is_dearer_than_a_pull(self, questions: int, contacts: int) -> bool:
        """Whether all contacts, asked for like these, take more calls than the last pull did.

        That was one of everything, unless it only went on where another was interrupted: only a CRM
        that cannot tell what changed is asked for single records.
        """
        with self._context.read() as tx:
            last = state.latest_run(tx, self._context.name, "pull", "done")
            linked = links.count(tx, self._context.name)
        if last is None or last.counts is None or last.counts["seen"] < linked:
            return False
        return last.api_calls < questions * self._total / contacts


def apply_read(context: Context, records: Sequence[Record], read_at: datetime) -> None:
    """Land records that were asked for one by one, and apply them."""
    with context.write() as tx:
        landing.land(tx, context.name, arrivals(context, records, read_at), context.run_id)
    apply_landed(context)


def _spelled(context: Context, contact: str) -> tuple[str, ...]:
    """The contact's number as it may be written there."""
    region = context.mapping.region
    try:
        return spellings(whatsapp_id(contact, region), region)
    except NoIdentityError:
        return (contact,)


def _find(context: Context, spelled: Sequence[str]) -> list[Record] | None:
    """Ask for a number in one spelling after the other; None where the CRM cannot be asked."""
    found: list[Record] | None = None
    for spelling in spelled:
        found = context.connector.find(spelling)
        if found is None or found:
            break
    return found
