"""Look before you write: what changed in the CRM since the last pull is merged, not overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from crm_pipeline.connectors.base import Record
from crm_pipeline.store import landing, links
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.arrivals import arrivals
from crm_pipeline.sync.context import Context
from crm_pipeline.sync.identity import NoIdentityError, spellings, whatsapp_id
from crm_pipeline.sync.pull import pull_new


class Look:
    """Looks at what is about to be written, in the fewest calls the CRM allows."""

    def __init__(self, context: Context, *, done: bool) -> None:
        """``done``: everything has just been pulled, and there is nothing to look at."""
        self._context, self._done = context, done

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
            pull_new(self._context)
            apply_landed(self._context)
            self._done = True
        return True

    def _ask(self, contacts: Sequence[str]) -> bool:
        """Ask for single records; False where the CRM cannot be asked for one it may have."""
        context = self._context
        with context.read() as tx:
            linked = links.load_by_contact(tx, context.name, contacts)
        read_at = context.clock()
        records = {link.contact_id: link.external_id for link in linked if link.external_deleted_at is None}
        found = context.connector.read(list(records.values())) if records else []
        for contact in contacts:
            if contact not in records:
                same = _find(context, contact)
                if same is None:
                    return False
                found.extend(same)
        apply_read(context, found, read_at)
        return True


def apply_read(context: Context, records: Sequence[Record], read_at: datetime) -> None:
    """Land records that were asked for one by one, and apply them."""
    with context.write() as tx:
        landing.land(tx, context.name, arrivals(context, records, read_at), context.run_id)
    apply_landed(context)


def _find(context: Context, contact: str) -> list[Record] | None:
    """Ask for the contact's number as it may be written there; None where the CRM cannot be asked."""
    region, found = context.mapping.region, None
    try:
        known = spellings(whatsapp_id(contact, region), region)
    except NoIdentityError:
        known = (contact,)
    for spelling in known:
        found = context.connector.find(spelling)
        if found is None or found:
            break
    return found
