"""Apply: the one way in. Landed records become contacts, a batch to a transaction."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from datetime import datetime

from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.exc import DataError, IntegrityError

from crm_pipeline import jsonio
from crm_pipeline.connection import Connection
from crm_pipeline.store import contacts, landing, links, state
from crm_pipeline.store.landing import BATCH, Landed
from crm_pipeline.store.rejects import NewReject
from crm_pipeline.sync.context import Context, Progress, no_progress
from crm_pipeline.sync.errors import RecordRejected, TooManyDeletesError
from crm_pipeline.sync.mapping import Values
from crm_pipeline.sync.reports import CONTACT_IDS_KEPT, Outcome, Report
from crm_pipeline.sync.settle import News, Settler
from crm_pipeline.sync.spellings import adoptable
from crm_pipeline.sync.workset import Workset, identities


def apply_landed(
    context: Context,
    progress: Progress = no_progress,
    *,
    allow_deletes: bool = False,
    begun: Report | None = None,
) -> Report:
    """Apply everything that waits, oldest first; ``begun`` tells what has been applied already.

    Raises:
        TooManyDeletesError: more contacts would be archived than the connection allows;
            all the rest has been applied.
        LeaseLostError: another worker has taken over; what was committed stands.
    """
    started = time.monotonic()
    report = begun or Report("apply")
    wake(context)
    with context.read() as tx:
        waiting = landing.count_waiting(tx, context.name)
        too_many = None if allow_deletes else too_many_deletes(tx, context.connection)
    total = report.counts.seen + waiting
    while waiting and apply_next(context, report, BATCH, deletes=too_many is None):
        progress(report.counts.seen, total)
    report.duration_seconds += time.monotonic() - started
    if too_many is not None:
        raise TooManyDeletesError(too_many)
    return report


def wake(context: Context) -> None:
    """Let what has another meaning by now be applied once more."""
    _wake_for_new_mapping(context)
    _wake_made_anew(context)


def _wake_made_anew(context: Context) -> None:
    """Contacts that were deleted and made again meet their records anew."""
    with context.read() as tx:
        respelled = adoptable(tx, context.name, context.mapping.region)
        anew = landing.made_anew(tx, context.name)
    if respelled or anew:
        with context.write() as tx:
            for key, now in respelled.items():
                links.readdress(tx, context.name, key, now)
            landing.wake(tx, context.name, landing.made_anew(tx, context.name))


def too_many_deletes(tx: Transaction, connection: Connection) -> str | None:
    """Why the tombstones that wait may not be applied; None when they may."""
    rules = connection.deletes
    deletes = landing.count_waiting_deletes(tx, connection.name)
    if rules.policy == "keep" or deletes <= rules.always_allowed:
        return None
    linked = links.count(tx, connection.name)
    if deletes <= linked * rules.max_share:
        return None
    return (
        f"the CRM no longer has {deletes} of {linked} linked contacts, more than {rules.max_share:.0%} "
        "in one run; none of them was archived. If that is right, run 'crm-pipeline pull --allow-deletes', "
        "or the asset 'contacts' in Dagster with 'allow_deletes: true' in its config. If not, mend the CRM "
        "or the credentials' scope: records that are listed again are taken back"
    )


def _wake_for_new_mapping(context: Context) -> None:
    """Under another mapping everything is looked at again, both ways; what agrees costs no call."""
    parts = {"fields", "select", "timezone", "default_region"}
    digest = jsonio.content_hash(jsonio.dumps(context.connection.model_dump(mode="json", include=parts)))
    with context.read() as tx:
        known = state.load(tx, context.name)
    if known is None or known.mapping == digest:
        return
    with context.write() as tx:
        if known.mapping is not None:
            landing.wait_again(tx, context.name)
            contacts.mark_all_to_push(tx)
        state.save(tx, context.name, mapping=digest)


def apply_next(context: Context, report: Report, limit: int, *, deletes: bool) -> bool:
    """Apply the next batch; what the database refuses is narrowed down to the one record."""
    try:
        with context.write() as tx:
            rows = landing.waiting(tx, context.name, limit, deletes=deletes)
            if not rows:
                return False
            settled = settle(context, tx, rows)
            settled.tell(tx)
            settled.save(context.run_id)
    except (IntegrityError, DataError):
        # Either another program inserted the same contact a moment ago, and a second try
        # sees it; or one record holds what this database cannot store.
        if limit == 1:
            _reject_next(context, report, deletes=deletes)
            return True
        return apply_next(context, report, max(1, limit // 10), deletes=deletes)
    settled.add_to(report)
    return True


class Settled:
    """What becomes of a batch: worked out in memory, written by who asked for it."""

    def __init__(self, work: Workset, at: datetime) -> None:
        """Nothing has become of anything yet."""
        self.at = at
        self.outcomes: dict[int, Outcome] = {}
        """Where landed rows ended."""
        self._work = work
        self._contact_ids: list[str] = []

    def note(self, row: Landed, outcome: Outcome) -> None:
        """A record ended here."""
        self.outcomes[row.id] = outcome
        if outcome is Outcome.CREATED or outcome is Outcome.UPDATED:
            link = self._work.link(row.external_id)
            contact = self._work.contact(link.contact_id) if link else None
            if contact:
                self._contact_ids.append(str(contact.values["id"]))

    def reject(self, row: Landed, rejected: RecordRejected) -> None:
        """A record is set aside."""
        self._work.new_rejects.append(
            NewReject("pull", row.external_id, rejected.reasons, None, row.id, rejected.contact_id)
        )
        self.note(row, Outcome.REJECTED)

    def save(self, run_id: str) -> None:
        """Write what became of contacts, links and all that goes with them.

        After it is written where records ended: some are woken by what became of others.
        """
        self._work.save(run_id, self.at)

    def tell(self, tx: Transaction) -> None:
        """Write down where rows ended that are stored already."""
        ended: defaultdict[Outcome, list[int]] = defaultdict(list)
        for row_id, outcome in self.outcomes.items():
            ended[outcome].append(row_id)
        for outcome, row_ids in ended.items():
            landing.settle(tx, row_ids, outcome.value, self.at)

    def add_to(self, report: Report) -> None:
        """Count what has been committed."""
        report.counts.add(Counter(self.outcomes.values()))
        report.conflicts += len(self._work.conflicts)
        room = CONTACT_IDS_KEPT - len(report.contact_ids)
        report.contact_ids.extend(self._contact_ids[:room])


def settle(context: Context, tx: Transaction, rows: list[Landed]) -> Settled:
    """Work out what becomes of landed records; there is at least one."""
    work, now = Workset(tx, context.name, context.mapping), context.clock()
    settled = Settled(work, now)
    mapped = _mapped(context, rows, settled)
    work.load(
        [row.external_id for row in rows],
        identities(values for _, values in mapped),
        now,
        read_since=min(row.read_at for row in rows),
    )
    settler = Settler(work, context.mapping, context.connection, now)
    for row, values in mapped:
        news = News.of(row)
        try:
            if values is None:
                outcome = settler.leave(news)
            else:
                outcome = settler.delete(news) if row.deleted else settler.settle(news, values)
        except RecordRejected as rejected:
            settled.reject(row, rejected)
        else:
            work.cleared_rejects.append(row.external_id)
            settled.note(row, outcome)
    return settled


def _mapped(context: Context, rows: list[Landed], settled: Settled) -> list[tuple[Landed, Values | None]]:
    """Records that map, with None where a hook leaves one out; those that cannot are settled here."""
    mapped: list[tuple[Landed, Values | None]] = []
    for row in rows:
        if row.deleted:
            mapped.append((row, {}))
            continue
        try:
            values = context.translator.to_contact(jsonio.loads(row.payload))
        except RecordRejected as rejected:
            settled.reject(row, rejected)
            continue
        mapped.append((row, values))
    return mapped


def _reject_next(context: Context, report: Report, *, deletes: bool) -> None:
    """Set the next record aside: the database will not hold it."""
    with context.write() as tx:
        settled = Settled(Workset(tx, context.name, context.mapping), context.clock())
        for row in landing.waiting(tx, context.name, 1, deletes=deletes):
            settled.reject(row, RecordRejected({"record": "holds a value the database cannot store"}))
        settled.tell(tx)
        settled.save(context.run_id)
    settled.add_to(report)
