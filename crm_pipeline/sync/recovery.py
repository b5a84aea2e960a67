"""Recovery: CRM writes nobody knows the end of are looked at before anything new is written.

A killed worker or a cut connection leaves an intent open: the write may have arrived or
not. The CRM itself is asked. What it shows is landed and applied like anything else;
the merge recognises our own write by the intent and learns that it arrived. Only then
may the field be written again. Of a job that was sent the CRM knows the end of every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from crm_pipeline.connectors.base import Bulk, JobRefusedError, Record, Write, WriteResult, WriteStatus
from crm_pipeline.connectors.together import together
from crm_pipeline.store import intents, landing, links, state
from crm_pipeline.store.intents import Intent
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.arrivals import tombstone
from crm_pipeline.sync.confirm import CONFIRMED_TOGETHER, Answered, Confirmation
from crm_pipeline.sync.context import Context
from crm_pipeline.sync.intend import IntendedWrite
from crm_pipeline.sync.look import apply_read
from crm_pipeline.sync.pull import pull_new
from crm_pipeline.sync.reports import Report


def recover(context: Context, report: Report) -> int:
    """Settle open intents; of how many creates nobody can tell yet.

    Raises:
        ConnectorError: the CRM could not be asked; the intents stay open.
    """
    at_work = _settle_jobs(context, report)
    waiting = [intent for intent in _open(context) if intent.job is None or intent.job not in at_work]
    if not waiting:
        return 0
    _read_back_changed(context, [intent for intent in waiting if intent.external_id is not None])
    return _find_created(context, [intent for intent in waiting if intent.external_id is None])


def _open(context: Context) -> list[Intent]:
    with context.read() as tx:
        return intents.all_open(tx, context.name)


def _settle_jobs(context: Context, report: Report) -> set[str]:
    """Ask the jobs that carry open writes what became of each; those that are still at work."""
    jobs: dict[str, list[IntendedWrite]] = {}
    for intent in _open(context):
        if intent.job is not None:
            jobs.setdefault(intent.job, []).append(_sent_again(context, intent))
    at_work: set[str] = set()
    bulk = context.connector.bulk if jobs else None
    if bulk is None:
        return at_work
    for job, sent in jobs.items():
        results = _asked(bulk, job, [planned.write for planned in sent])
        if results is None:
            at_work.add(job)
        else:
            _confirm(context, list(zip(sent, results, strict=True)), report)
    return at_work


def _confirm(context: Context, told: Sequence[tuple[IntendedWrite, WriteResult]], report: Report) -> None:
    """Settle rows by their results, as a batch's; those that stay open are read back."""
    for start in range(0, len(told), CONFIRMED_TOGETHER):
        some = told[start : start + CONFIRMED_TOGETHER]
        with context.write() as tx:
            known = links.load_by_contact(tx, context.name, [each.intent.contact_id for each, _ in some])
            read_at = {link.contact_id: link.read_at for link in known}
            clear = [pair for pair in some if _tells_all(*pair, read_at.get(pair[0].intent.contact_id))]
            if clear:
                asked_at = min(each.intent.created_at for each, _ in clear)
                answered = Answered([each for each, _ in clear], [result for _, result in clear], asked_at)
                Confirmation(context, tx).confirm([answered], report)


def _tells_all(planned: IntendedWrite, result: WriteResult, read_at: datetime | None) -> bool:
    """Whether a result settles a write: of a record that was read meanwhile it cannot say what came last."""
    if result.status is WriteStatus.WRITTEN:
        return read_at is None or read_at < planned.intent.created_at
    return result.status is not WriteStatus.UNKNOWN


def _asked(bulk: Bulk, job: str, writes: Sequence[Write]) -> list[WriteResult] | None:
    try:
        return bulk.settle(job, writes)
    except JobRefusedError as refused:
        return [WriteResult(WriteStatus.FAILED, write.external_id, reason=str(refused)) for write in writes]


def _sent_again(context: Context, intent: Intent) -> IntendedWrite:
    """What was sent, as far as a job's results name it.

    Where a hook writes the id in another way, they are not found by it, and the record is
    looked for like any other.
    """
    named = {} if intent.external_id else context.mapping.to_external(intent.sent, ["id"], {}, None)
    return IntendedWrite(intent, Write(intent.id, intent.external_id, named), frozenset())


def _read_back_changed(context: Context, waiting: Sequence[Intent]) -> None:
    """The records exist: read them. Whatever the merge did not recognise did not arrive."""
    if not waiting:
        return
    ids = [intent.external_id for intent in waiting if intent.external_id is not None]
    read_at = context.clock()
    found = context.connector.read(ids)
    gone = set(ids) - {record.external_id for record in found}
    with context.write() as tx:
        tombstones = [tombstone(external_id, read_at) for external_id in sorted(gone)]
        landing.land(tx, context.name, tombstones, context.run_id)
    apply_read(context, found, read_at)
    _supersede(context, waiting)


def _find_created(context: Context, waiting: Sequence[Intent]) -> int:
    """The records may exist: find them by our own unique value, or by reading all that is new."""
    visible_since = context.clock() - timedelta(seconds=context.connection.listing.lag_seconds)
    visible = [intent for intent in waiting if intent.created_at <= visible_since]
    asked = visible if len(visible) <= _MOST_ASKED_SINGLY else []
    read_at = context.clock()
    answers = together(partial(_find, context), asked, context.connection.limits.in_flight)
    found = {intent.id: records for intent, records in zip(asked, answers, strict=True) if records}
    if found:
        apply_read(context, [record for records in found.values() for record in records], read_at)
        _supersede(context, [intent for intent in asked if intent.id in found])
    # That a search shows nothing is no proof: it may know another spelling only.
    unasked = [intent for intent in visible if intent.id not in found]
    if unasked:
        _read_all_new(context, unasked)
    with context.read() as tx:
        return len(intents.open_of(tx, context.name, [intent.contact_id for intent in waiting]))


def _find(context: Context, intent: Intent) -> list[Record] | None:
    return context.connector.find(str(intent.sent.get("id", intent.contact_id)))


_MOST_ASKED_SINGLY = 250
"""More creates than that are cheaper found by reading all that is new."""


def _read_all_new(context: Context, waiting: Sequence[Intent]) -> None:
    """What was created shows in a complete pull that began after the write was sent."""
    if _last_read(context) <= max(intent.created_at for intent in waiting):
        pull_new(context)
    apply_landed(context)
    read_at = _last_read(context)
    _supersede(context, [intent for intent in waiting if intent.created_at < read_at])


def _last_read(context: Context) -> datetime:
    with context.read() as tx:
        known = state.load(tx, context.name)
    return known.last_read_at if known and known.last_read_at else datetime.min.replace(tzinfo=UTC)


def _supersede(context: Context, settled: Sequence[Intent]) -> None:
    """These were looked for: found and linked by now, or certainly not there."""
    with context.write() as tx:
        still_open = intents.open_of(tx, context.name, [intent.contact_id for intent in settled])
        intents.close(tx, [(intent.id, "superseded") for intent in still_open.values()], context.clock())
