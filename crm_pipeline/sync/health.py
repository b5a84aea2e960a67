"""Health: one summary of how the sync's data stands, without a single person in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.engine import Connection as Transaction

from crm_pipeline.connection import Connection
from crm_pipeline.contact import BUILT_IN
from crm_pipeline.store import health, rejects, webhooks
from crm_pipeline.sync.identity import NoIdentityError, whatsapp_id
from crm_pipeline.sync.reports import Outcome


@dataclass(frozen=True, slots=True)
class Health:
    """How the data of one connection stands."""

    outcomes: Mapping[str, int]
    """Records as last read, by where they ended."""
    waiting: int
    """Of those, the ones that have not been applied."""
    landed: int
    """All of them."""
    pull_rejects: int
    """Open rejects of records."""
    push_rejects: int
    """Open rejects of contacts."""
    events_waiting: int
    """Webhooks that have not been applied."""
    oldest_event_at: datetime | None
    """When the one of them that has waited longest was received."""
    contacts: int
    odd_deal_status: int
    """Contacts with a deal status that is none of the known."""
    odd_status: int
    """Contacts with a task status that is none of the known."""
    doubled: int
    """Contacts whose id is another contact's in another spelling."""
    claimed: int = 0
    """Records that claim to be a contact which another record is linked to."""
    webhook_rejects: int = 0
    """Open rejects of webhooks."""


EMPTY = Health({}, 0, 0, 0, 0, 0, None, 0, 0, 0, 0)
"""Nothing is there."""


def read_health(tx: Transaction, connection: Connection) -> Health:
    """Read the summary; a few queries over whole tables."""
    records = health.current_records(tx, connection.name)
    rejected = rejects.count(tx, connection.name)
    events = webhooks.unapplied(tx, connection.name)
    total, odd = _odd_choices(tx, connection)
    return Health(
        outcomes={outcome.value: records.get(outcome.value, 0) for outcome in Outcome},
        waiting=records.get(None, 0),
        landed=sum(records.values()),
        pull_rejects=rejected.get("pull", 0),
        push_rejects=rejected.get("push", 0),
        events_waiting=events.number,
        oldest_event_at=events.oldest_at,
        contacts=total,
        odd_deal_status=odd["deal_status"],
        odd_status=odd["status"],
        doubled=_doubled(tx, connection.default_region),
        claimed=rejects.count_claims(tx, connection.name),
        webhook_rejects=rejected.get("webhook", 0),
    )


def _odd_choices(tx: Transaction, connection: Connection) -> tuple[int, Counter[str]]:
    """How many contacts there are, and how many hold a choice that nobody knows, by column."""
    deal_statuses, statuses = _choices(connection, "deal_status"), (None, *_choices(connection, "status"))
    total = 0
    odd: Counter[str] = Counter()
    for (deal_status, status), number in health.choices_in_use(tx).items():
        total += number
        odd["deal_status"] += number * (deal_status not in deal_statuses)
        odd["status"] += number * (status not in statuses)
    return total, odd


def _choices(connection: Connection, field: str) -> tuple[str, ...]:
    rule = connection.fields.get(field)
    return (rule.choices if rule is not None else None) or BUILT_IN[field].choices


def _doubled(tx: Transaction, region: str) -> int:
    """How many contacts could go if each person had one row."""
    spellings: Counter[str] = Counter()
    for raw in health.uncanonical_ids(tx):
        try:
            spellings[whatsapp_id(raw, region)] += 1
        except NoIdentityError:
            continue  # no spelling of anything: it doubles nobody
    return spellings.total() - len(spellings) + len(health.known_ids(tx, spellings))
