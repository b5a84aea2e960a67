"""Comparing: contacts and links, portion by portion, against the table of what the CRM listed.

Whole columns are compared for equality first. Only where cells are not plainly settled is
the merge asked what it would do: nothing is drift that it would leave as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.engine import Connection as Transaction

from crm_pipeline.store import contacts, intents, landing, ledger, links, rejects, webhooks
from crm_pipeline.store.contacts import StoredContact
from crm_pipeline.store.links import Link
from crm_pipeline.sync.context import Context
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.listed import Listed, Row, Shape
from crm_pipeline.sync.mapping import Values
from crm_pipeline.sync.merge import ABSENT, CONFLICTS, FieldRules, FieldState, changed, merge_field, to_push
from crm_pipeline.sync.parity import WHOLE, Drift, Kind, Known, ReconcileReport
from crm_pipeline.sync.plan import PlannedWrite, plan_write, to_write
from crm_pipeline.sync.selection import takes_part
from crm_pipeline.sync.unsettled import Pair, unsettled

PORTION = 1000
"""Links, records or contacts looked up together."""


@dataclass(frozen=True, slots=True)
class Absence:
    """What is known of linked records that were not listed."""

    is_news: bool
    """The next pull finds them gone by itself."""
    untold: frozenset[str]
    """The CRM cannot be asked for these."""


class Comparison:
    """Compares everything; keeps what was found, and what it takes to have it settled."""

    def __init__(self, context: Context, listed: Listed, absence: Absence, report: ReconcileReport) -> None:
        """Nothing compared yet."""
        self._context, self._listed, self._absence, self._report = context, listed, absence, report
        self._mapping = context.mapping
        self._types = {name: rule.type for name, rule in context.mapping.fields.items()}
        self._heard: set[str] = set()
        self._linked: set[int] = set()
        self.units: list[str | None] = []
        """Records with a silent difference; None for each contact that never got one."""
        self.to_wake: list[int] = []
        """Landed rows of records that have to be applied once more as they are."""
        self.gone: dict[str, None] = {}
        """Linked records that do not exist any more, in order."""
        self.lost: list[str] = []
        """Linked records whose contacts vanished without having been deleted."""
        self.unsent: list[str] = []
        """Contacts the CRM was never told of."""

    def compare(self) -> None:
        """Compare links, then the records that have none, then the contacts that have none."""
        with self._context.read() as tx:
            self._heard = webhooks.waiting_about(tx, self._context.name)
        after = ""
        while found := self._next_links(after):
            after = found[-1].external_id
        alone = [at for at in range(len(self._listed)) if at not in self._linked]
        for start in range(0, len(alone), PORTION):
            with self._context.read() as tx:
                self._compare_records(tx, alone[start : start + PORTION])
        after = ""
        while unlinked := self._next_contacts(after):
            after = unlinked[-1].id

    def _drift(self, row: Row | None, *drifts: Drift) -> None:
        """Note the silent differences of one pair; what landed as it is has to be looked at again."""
        self._report.differing += 1
        self._report.drifts.extend(drifts)
        self.units.append(drifts[0].external_id)
        if row is not None and row.landed_id is not None:
            self.to_wake.append(row.landed_id)

    def _known(self, reason: Known) -> None:
        self._report.known[reason] += 1

    # Links.

    def _next_links(self, after: str) -> list[Link]:
        name = self._context.name
        with self._context.read() as tx:
            found = links.portion(tx, name, after, PORTION)
            stored = contacts.load(tx, [link.contact_id for link in found], lock=False)
            pairs = self._pairs(tx, found, stored)
            held = ledger.open_fields(tx, name, list(stored))
            unsure = intents.open_of(tx, name, list(stored)).keys()
        open_fields = unsettled(pairs, self._listed, self._types) if pairs else []
        for pair, fields in zip(pairs, open_fields, strict=True):
            key = pair.link.contact_id
            self._compare_pair(pair, fields, held.get(key, {}).keys(), unsure=key in unsure)
        return found

    def _pairs(
        self, tx: Transaction, found: Sequence[Link], stored: Mapping[str, StoredContact]
    ) -> list[Pair]:
        """Links with two living sides; the others are settled here."""
        pairs = []
        unlisted: list[Link] = []
        for link, listed_at in zip(
            found, self._listed.positions([each.external_id for each in found]), strict=True
        ):
            # Until a record has told its own id, its link goes by the contact's.
            at = listed_at if listed_at >= 0 else self._listed.claims(link.external_id)
            contact = stored.get(link.contact_id)
            self._linked.add(at)
            there = at >= 0 and self._listed.form(at).shape is not Shape.DELETED
            if contact is None:
                self._without_contact(tx, link, at if there else None)
            elif link.contact_deleted_at is not None:
                self._known(Known.WAITS)  # deleted and made anew: they meet when the next run applies
            elif there and link.external_deleted_at is not None:
                self._there_again(link, contact, at)
            elif contact.archived_at is not None or link.external_deleted_at is not None:
                self._known(Known.GONE)
            elif there:
                values, _ = self._mapping.canonical(contact.data)
                pairs.append(Pair(link, contact, values, at))
            elif at >= 0 and (reason := self._listed.row(at).reason) is not None:
                self._known(reason)
            else:
                unlisted.append(link)
        self._without_record(tx, unlisted)
        return pairs

    def _without_contact(self, tx: Transaction, link: Link, at: int | None) -> None:
        """A contact that is gone: a delete here stays here, and any program's delete is on record."""
        (now,) = links.load_by_external_id(tx, self._context.name, [link.external_id])
        if now.contact_deleted_at is not None or at is None or self._listed.form(at).shape is Shape.LEFT_OUT:
            self._known(Known.GONE)
            return
        self.lost.append(link.external_id)
        row = self._listed.row(at)
        self._drift(row, Drift(link.contact_id, row.external_id, Kind.MISSING_HERE))

    def _there_again(self, link: Link, contact: StoredContact, at: int) -> None:
        """A record that was gone and is not."""
        row = self._listed.row(at)
        reason = row.reason or self._left_out(row, contact)
        if reason is not None:
            self._known(reason)
        else:
            self._drift(row, Drift(link.contact_id, row.external_id, Kind.MISSING_HERE))

    def _without_record(self, tx: Transaction, unlisted: Sequence[Link]) -> None:
        names = [link.external_id for link in unlisted]
        standings = landing.standings(tx, self._context.name, names) if names else {}
        for link in unlisted:
            standing = standings.get(link.external_id)
            if link.external_id in self._absence.untold:
                self._known(Known.UNTOLD)
            elif standing is not None and standing.deleted and standing.outcome is None:
                self._known(Known.WAITS)
            elif self._absence.is_news:
                self._known(Known.NEWS)
            else:
                self.gone[link.external_id] = None
                if standing is not None and standing.deleted:
                    self.to_wake.append(standing.id)
                self._drift(None, Drift(link.contact_id, link.external_id, Kind.MISSING_THERE))

    def _compare_pair(self, pair: Pair, fields: Sequence[str], held: Iterable[str], *, unsure: bool) -> None:
        form, link = self._listed.form(pair.position), pair.link
        if form.shape is Shape.READ and not fields:
            self._report.agreed += 1
            return
        row = self._listed.row(pair.position)
        reason = row.reason or self._left_out(row, pair.contact)
        if reason is None and unsure:
            reason = Known.PENDING
        if reason is None and not self._heard.isdisjoint(
            {link.external_id, link.contact_id, pair.here["id"]}
        ):
            reason = Known.WAITS
        if reason is not None:
            self._known(reason)
            return
        if form.shape is Shape.UNFIT:
            found: dict[str, Known | Kind | None] = dict.fromkeys(form.fields or {WHOLE}, Kind.VALUE)
        else:
            found = {name: self._field(pair, name, row.said, held) for name in fields}
        drifts = [name for name, each in found.items() if each is Kind.VALUE]
        if drifts:
            told = (Drift(link.contact_id, row.external_id, Kind.VALUE, name) for name in sorted(drifts))
            self._drift(row, *told)
            return
        reasons = [each for each in found.values() if isinstance(each, Known)]
        if reasons:
            self._known(reasons[0])
        else:
            self._report.agreed += 1

    def _field(self, pair: Pair, name: str, said: Values, held: Iterable[str]) -> Known | Kind | None:
        """What one field is; None where the merge would leave it as it is."""
        link, rule = pair.link, self._mapping.fields[name]
        state = FieldState(
            external=said.get(name, ABSENT),
            internal=pair.here.get(name),
            external_shadow=link.external_shadow.get(name, ABSENT),
            internal_shadow=link.internal_shadow.get(name, ABSENT),
            assumed=name in link.assumed,
            replaced=link.assumed[name][0] if name in link.assumed else ABSENT,
        )
        decision = merge_field(state, FieldRules(rule.direction, rule.policy))  # whoever wins, it differs
        stays = decision.internal == state.internal and decision.verdict not in CONFLICTS
        if stays and not to_push(decision.internal, decision.internal_shadow, rule.direction):
            return None
        if name in held:
            return Known.CONFLICT
        outside = changed(state.external, state.external_shadow)
        if outside or not changed(state.internal, state.internal_shadow):
            return Kind.VALUE
        noticed = link.edits.get(name)
        waits = pair.contact.row_version != pair.contact.pushed_version
        if waits or (noticed is not None and noticed[0] == state.internal):
            return Known.PENDING
        return Kind.VALUE if takes_part(self._mapping.outward, pair.here, {}) else Known.RULE

    def _left_out(self, row: Row, contact: StoredContact | None) -> Known | None:
        """Whether a rule keeps a record out, as the sync would say."""
        if row.form.shape is Shape.READ:
            rules = self._context.connection.select.inward
            known = self._mapping.canonical(contact.data)[0] if contact is not None else None
            return None if takes_part(rules, row.said, known) else Known.RULE
        return Known.RULE if row.form.shape is Shape.LEFT_OUT else None

    # Records without a link.

    def _compare_records(self, tx: Transaction, positions: Sequence[int]) -> None:
        rows = [self._listed.row(at) for at in positions]
        said = {at: str(row.said["id"]) for at, row in zip(positions, rows, strict=True) if "id" in row.said}
        behind = contacts.resolve(tx, list(said.values()))
        keys = {*said.values(), *behind.values()}
        stored = contacts.load(tx, keys, lock=False)
        link_of = {link.contact_id: link for link in links.load_by_contact(tx, self._context.name, keys)}
        for at, row in zip(positions, rows, strict=True):
            identity = said.get(at)
            key = (
                None
                if identity is None
                else identity
                if identity in stored
                else behind.get(identity, identity)
            )
            contact = stored.get(key or "")
            reason = Known.GONE if row.form.shape is Shape.DELETED else row.reason
            reason = reason or self._left_out(row, contact)
            if reason is None and not self._heard.isdisjoint({row.external_id, identity, key}):
                reason = Known.WAITS
            if reason is not None:
                self._known(reason)
                continue
            doubled = identity is not None and self._is_second(at, identity, link_of.get(key or ""))
            kind = Kind.DOUBLED_THERE if doubled else Kind.MISSING_HERE
            self._drift(row, Drift(key, row.external_id, kind))

    def _is_second(self, at: int, identity: str, link: Link | None) -> bool:
        """Whether the contact has a record already: one it is linked to, or one listed before this."""
        lives = link is not None and link.external_deleted_at is None and link.external_id not in self.gone
        return lives or self._listed.claims(identity) != at

    # Contacts without a link.

    def _next_contacts(self, after: str) -> list[StoredContact]:
        name = self._context.name
        with self._context.read() as tx:
            found = contacts.portion_unlinked(tx, name, after, PORTION)
            keys = [contact.id for contact in found]
            refused = intents.refused_versions(tx, name, keys)
            rejected = rejects.attempts(tx, name, "push", keys)
        for contact in found:
            values, _ = self._mapping.canonical(contact.data)
            if self._listed.claims(str(values["id"])) >= 0:
                continue  # counted with the record
            if contact.archived_at is not None:
                self._known(Known.GONE)
            elif contact.row_version != contact.pushed_version:
                self._known(Known.PENDING)
            elif contact.id in rejected or refused.get(contact.id) == contact.row_version:
                self._known(Known.REJECTED)
            elif not self._heard.isdisjoint({contact.id, values["id"]}):
                self._known(Known.WAITS)
            else:
                self._compare_unsent(contact)
        return found

    def _compare_unsent(self, contact: StoredContact) -> None:
        """A contact that nothing waits to tell the CRM of: would there be anything to tell?"""
        mapping, translator = self._mapping, self._context.translator
        canonical = mapping.canonical(contact.data)
        dirty = to_write(mapping, canonical[0], None, ())
        try:
            planned = plan_write(
                mapping, translator, contact.id, contact.row_version, canonical, None, dirty, None
            )
        except RecordRejected:
            self._known(Known.REJECTED)
            return
        if isinstance(planned, PlannedWrite):
            self.unsent.append(contact.id)
            self._drift(None, Drift(contact.id, None, Kind.MISSING_THERE))
        else:
            self._known(Known.RULE)
