"""Sample: some linked contacts after each run, held against their records as last read.

The CRM is asked nothing, so this finds what was lost between landing and contact, and rows
written past the trigger. What was lost on the way from the CRM, the nightly comparison finds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy.engine import Connection as Transaction

from crm_pipeline import jsonio
from crm_pipeline.store import contacts, intents, landing, ledger, links, observations
from crm_pipeline.store.contacts import StoredContact
from crm_pipeline.store.links import Link
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import FieldMapping, Translator, Values
from crm_pipeline.sync.merge import ABSENT, CONFLICTS, FieldRules, FieldState, merge_field, to_push
from crm_pipeline.sync.reports import Outcome

NAME = "sample"
SIZE = 100
"""Links looked at in one go. The next goes on behind them, so that in the end all have their turn."""
_Pair: TypeAlias = tuple[Link, StoredContact, Any, Collection[str]]
"""A link, its contact, its record as it landed, and fields that wait for a person."""
_SETTLED = frozenset({Outcome.CREATED, Outcome.UPDATED, Outcome.UNCHANGED})


@dataclass(frozen=True, slots=True)
class Sample:
    """What a look at some pairs has found."""

    compared: int = 0
    """Pairs of which nothing waits to be done."""
    differing: int = 0
    """Of those and of the ones that differed before: pairs that differ all the same."""


def take(tx: Transaction, connection: str, mapping: FieldMapping, translator: Translator) -> Sample:
    """Look at the next ones, and again at those that differed; remember where to go on."""
    state = observations.locked(tx, connection, NAME)
    suspects = links.load_by_external_id(tx, connection, state.get("suspects", []))
    portion = links.portion(tx, connection, state.get("after", ""), SIZE)
    chosen = list({link.external_id: link for link in [*suspects, *portion]}.values())
    pairs = _settled_pairs(tx, connection, chosen)
    differing = [link.external_id for link, *rest in pairs if _differs(mapping, translator, link, *rest)]
    found = Sample(len(pairs), len(differing))
    after = portion[-1].external_id if len(portion) == SIZE else ""
    kept = {"after": after, "suspects": differing[:SIZE], "found": [found.compared, found.differing]}
    observations.save(tx, connection, NAME, kept)
    return found


def last(tx: Transaction, connection: str) -> Sample:
    """What the last look has found."""
    return Sample(*observations.load(tx, connection, NAME).get("found", ()))


def _settled_pairs(tx: Transaction, connection: str, chosen: Sequence[Link]) -> list[_Pair]:
    """Links with both sides alive and nothing waiting: what it takes to compare them."""
    names = [link.external_id for link in chosen]
    keys = [link.contact_id for link in chosen]
    stored = contacts.load(tx, keys, lock=False)
    standings = landing.standings(tx, connection, names) if names else {}
    payloads = landing.payloads(tx, connection, names) if names else {}
    held = ledger.open_fields(tx, connection, keys)
    unsure = intents.open_of(tx, connection, keys)
    pairs: list[_Pair] = []
    for link in chosen:
        contact, standing = stored.get(link.contact_id), standings.get(link.external_id)
        if contact is None or standing is None or standing.outcome not in _SETTLED:
            continue
        gone = link.external_deleted_at or link.contact_deleted_at or contact.archived_at or link.left_at
        waits = contact.row_version != contact.pushed_version or link.edits or contact.id in unsure
        if not (gone or waits or standing.deleted):
            record = jsonio.loads(payloads[link.external_id])
            pairs.append((link, contact, record, held.get(contact.id, {}).keys()))
    return pairs


def _differs(
    mapping: FieldMapping,
    translator: Translator,
    link: Link,
    contact: StoredContact,
    record: Any,
    held: Collection[str],
) -> bool:
    try:
        said = translator.to_contact(record)
    except RecordRejected:
        return True  # it was applied once: the mapping or the data is another by now
    here, _ = mapping.canonical(contact.data)
    return said is not None and any(
        name not in held and name not in link.assumed and _moves(mapping, link, said, here, name)
        for name in mapping.fields
    )


def _moves(mapping: FieldMapping, link: Link, said: Values, here: Mapping[str, Any], name: str) -> bool:
    """Whether applying the record once more would change the field on either side."""
    rule = mapping.fields[name]
    state = FieldState(
        external=said.get(name, ABSENT),
        internal=here.get(name),
        external_shadow=link.external_shadow.get(name, ABSENT),
        internal_shadow=link.internal_shadow.get(name, ABSENT),
    )
    decision = merge_field(state, FieldRules(rule.direction, rule.policy))
    stays = decision.internal == state.internal and decision.verdict not in CONFLICTS
    return not stays or to_push(decision.internal, decision.internal_shadow, rule.direction)
