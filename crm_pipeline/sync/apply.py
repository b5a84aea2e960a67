"""Apply: the one way in. Landed records become contacts, a batch to a transaction."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from datetime import datetime

from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.exc import DataError, IntegrityError

from crm_pipeline import jsonio
from crm_pipeline.connection import Connection
from crm_pipeline.store import contacts, landing, links, rejects, state
from crm_pipeline.store.landing import Landed
from crm_pipeline.store.rejects import NewReject
from crm_pipeline.sync.context import Context, Progress, no_progress
from crm_pipeline.sync.errors import RecordRejected, TooManyDeletesError
from crm_pipeline.sync.mapping import Values
from crm_pipeline.sync.reports import CONTACT_IDS_KEPT, Outcome, Report
from crm_pipeline.sync.settle import News, Settler
from crm_pipeline.sync.spellings import adoptable
from crm_pipeline.sync.workset import Workset, identities

BATCH = 1000
"""Records to a transaction."""


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
    _wake(context)
    with context.read() as tx:
        waiting = landing.count_waiting(tx, context.name)
        too_many = None if allow_deletes else too_many_deletes(tx, context.connection)
    total = report.counts.seen + waiting
    while waiting and _apply_next(context, report, BATCH, deletes=too_many is None):
        progress(report.counts.seen, total)
    report.duration_seconds += time.monotonic() - started
    if too_many is not None:
        raise TooManyDeletesError(too_many)
    return report


class Meanwhile:
    """Applies what a pull has landed while the CRM makes its next page; deletes wait for the end."""

    def __init__(self, context: Context, batch: int = BATCH) -> None:
        """``batch``: so many records are worth a transaction."""
        self.report = Report("apply")
        self._context, self._batch = context, batch
        self._waiting = 0

    def __call__(self, landed: int) -> None:
        """So many records have landed: apply a batch, where there is a whole one.

        Raises:
            LeaseLostError: another worker has taken over; what was committed stands.
        """
        self._waiting += landed
        if self._waiting < self._batch:
            return
        started = time.monotonic()
        if not self.report.counts.seen:
            _wake(self._context)
        self._waiting -= self._batch
        _apply_next(self._context, self.report, self._batch, deletes=False)
        self.report.duration_seconds += time.monotonic() - started


def _wake(context: Context) -> None:
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


def _apply_next(context: Context, report: Report, limit: int, *, deletes: bool) -> bool:
    """Apply the next batch; what the database refuses is narrowed down to the one record."""
    try:
        with context.write() as tx:
            rows = landing.waiting(tx, context.name, limit, deletes=deletes)
            done = _apply_rows(context, tx, rows)
    except (IntegrityError, DataError):
        # Either another program inserted the same contact a moment ago, and a second try
        # sees it; or one record holds what this database cannot store.
        if limit == 1:
            _reject_next(context, report, deletes=deletes)
            return True
        return _apply_next(context, report, max(1, limit // 10), deletes=deletes)
    done.add_to(report)
    return bool(rows)


class _Done:
    """What a committed batch did."""

    def __init__(self) -> None:
        self.ended: defaultdict[Outcome, list[int]] = defaultdict(list)
        """Landed rows, by where they ended."""
        self.contact_ids: list[str] = []
        self.conflicts = 0

    def note(self, row: Landed, outcome: Outcome) -> None:
        self.ended[outcome].append(row.id)

    def settle(self, tx: Transaction, at: datetime) -> None:
        """Say of each row where it ended."""
        for outcome, rows in self.ended.items():
            landing.settle(tx, rows, outcome.value, at)

    def add_to(self, report: Report) -> None:
        report.counts.add(Counter({outcome: len(rows) for outcome, rows in self.ended.items()}))
        report.conflicts += self.conflicts
        room = CONTACT_IDS_KEPT - len(report.contact_ids)
        report.contact_ids.extend(self.contact_ids[:room])


def _apply_rows(context: Context, tx: Transaction, rows: list[Landed]) -> _Done:
    done = _Done()
    if not rows:
        return done
    work = Workset(tx, context.name, context.mapping)
    mapped = _mapped(context, rows, work, done)
    now = context.clock()
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
            _reject(work, row, rejected)
            outcome = Outcome.REJECTED
        else:
            work.cleared_rejects.append(row.external_id)
        done.note(row, outcome)
        if outcome is Outcome.CREATED or outcome is Outcome.UPDATED:
            link = work.link(row.external_id)
            contact = work.contact(link.contact_id) if link else None
            if contact:
                done.contact_ids.append(str(contact.values["id"]))
    done.conflicts = len(work.conflicts)
    work.save(context.run_id, now)
    done.settle(tx, now)
    if any(row.deleted for row in rows):
        _wake_ambiguous(context, tx)
    return done


def _wake_ambiguous(context: Context, tx: Transaction) -> None:
    """A record that is gone may have been all that stood in another's way."""
    waiting = [
        reject.record_id
        for reject in rejects.load(tx, context.name)
        if reject.record_id is not None and reject.contact_id is not None
    ]
    landing.wait_again(tx, context.name, ids=waiting)


def _mapped(
    context: Context, rows: list[Landed], work: Workset, done: _Done
) -> list[tuple[Landed, Values | None]]:
    """Records that map, with None where a hook leaves one out; those that cannot are settled here."""
    mapped: list[tuple[Landed, Values | None]] = []
    for row in rows:
        if row.deleted:
            mapped.append((row, {}))
            continue
        try:
            values = context.translator.to_contact(jsonio.loads(row.payload))
        except RecordRejected as rejected:
            _reject(work, row, rejected)
            done.note(row, Outcome.REJECTED)
            continue
        mapped.append((row, values))
    return mapped


def _reject(work: Workset, row: Landed, rejected: RecordRejected) -> None:
    work.new_rejects.append(
        NewReject("pull", row.external_id, rejected.reasons, None, row.id, rejected.contact_id)
    )


def _reject_next(context: Context, report: Report, *, deletes: bool) -> None:
    """Set the next record aside: the database will not hold it."""
    with context.write() as tx:
        done = _Done()
        for row in landing.waiting(tx, context.name, 1, deletes=deletes):
            work = Workset(tx, context.name, context.mapping)
            _reject(work, row, RecordRejected({"record": "holds a value the database cannot store"}))
            done.note(row, Outcome.REJECTED)
            work.save(context.run_id, context.clock())
        done.settle(tx, context.clock())
    done.add_to(report)
