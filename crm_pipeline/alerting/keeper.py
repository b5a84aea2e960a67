"""Keeper: opens and closes incidents, and tells each of them once. Any process may do it, at any time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.engine import Engine

from crm_pipeline import instants
from crm_pipeline.alerting.channels import Channel
from crm_pipeline.alerting.conditions import Condition, Runs
from crm_pipeline.alerting.delivery import deliver
from crm_pipeline.alerting.messages import message
from crm_pipeline.store import alerts, state
from crm_pipeline.store.alerts import Incident
from crm_pipeline.store.engine import writing

QUIET = timedelta(minutes=5)
"""So long must a condition be gone before its incident is over: what comes and goes is one incident."""
PATIENCE = timedelta(minutes=2)
"""What is gone before then and stays away is told to nobody: the next run may mend it."""
_CLAIM = timedelta(minutes=3)
"""Longer than all channels take together; then another process may try."""
_WAITS = tuple(timedelta(minutes=minutes) for minutes in (1, 2, 5, 10, 20, 40, 60))
GIVEN_UP = timedelta(days=3)
"""A channel that could not be told for so long, and so often as there are waits, is told no more."""
_STEPS = ("pull", "apply", "push", "reconcile")


def note(
    engine: Engine, connection: str, found: Sequence[Condition], channels: Sequence[str], now: datetime
) -> None:
    """Open incidents for what is wrong and has none, and close those of what is well again."""
    with writing(engine) as tx:
        alerts.look(tx, connection, now)
        known = {incident.key: incident for incident in alerts.open_ones(tx, connection, lock=True)}
        for each in found:
            facts = {"text": each.text, "figures": dict(each.figures)}
            incident = known.pop(each.key, None)
            if incident is None:
                alerts.begin(tx, connection, now, key=each.key, grave=each.grave, **facts)
            else:
                grave = each.grave or incident.grave  # an error is one until it is over
                to_tell = _to_tell(incident, channels, now, worse=grave and not incident.grave)
                alerts.still(tx, incident, now, to_tell, grave=grave, **facts)
        for incident in known.values():
            if now - incident.seen_at >= QUIET:
                alerts.end(tx, incident, now)


def _to_tell(incident: Incident, channels: Sequence[str], now: datetime, *, worse: bool) -> list[str]:
    """Channels that have never heard of what is wrong for long enough, or heard only of a warning."""
    if now - incident.opened_at < PATIENCE:
        return []
    known = set() if worse else {*incident.told, *incident.waiting}
    return [name for name in channels if name not in known]


def tell(
    engine: Engine,
    connection: str,
    channels: Mapping[str, Channel],
    now: Callable[[], datetime] = instants.now,
) -> dict[str, str]:
    """Tell what is due, all of it in one message to each channel; which channels failed, and how.

    What a channel took is noted at once, whatever the others do. What it did not take is tried again
    later, by itself. If the process dies between a sending and its note, that message is sent once more.
    """
    with writing(engine) as tx:
        due = alerts.claim(tx, connection, now(), _CLAIM)
    if not due:
        return {}
    failed: dict[str, str] = {}
    names = sorted({channel for incident in due for channel in incident.waiting})
    mine = {name: [incident for incident in due if name in incident.waiting] for name in names}
    with writing(engine) as tx:
        for name in mine.keys() - channels.keys():  # configured no more: nobody to tell
            for incident in mine[name]:
                alerts.leave(tx, incident, name)
    messages = {name: message(connection, about, name) for name, about in mine.items() if name in channels}
    for name, failure in deliver(connection, channels, messages):
        with writing(engine) as tx:
            for incident in mine[name]:
                if failure is None:
                    alerts.heard(tx, incident, name, now())
                else:
                    alerts.missed(tx, incident, _again_at(incident, now()))
        if failure is not None:
            failed[name] = failure
    return failed


def our_runs(
    tx: Transaction, connection: str, failing_jobs: Sequence[str] = (), queued_since: datetime | None = None
) -> Runs:
    """What our own rows say of the steps, beside what Dagster says of its runs."""
    failing = {}
    for step in _STEPS:
        failed, done = (state.latest_run(tx, connection, step, end) for end in ("failed", "done"))
        if failed is not None and (done is None or failed.started_at > done.started_at):
            failing[step] = failed.error or "without a reason"
    compared = state.latest_run(tx, connection, "reconcile", "done")
    counts = (compared.counts if compared is not None else None) or {}
    settled = counts.get("mended", 0) + counts.get("for_people", 0)
    return Runs(failing, counts.get("differing", 0) - settled, tuple(failing_jobs), queued_since)


def _again_at(incident: Incident, now: datetime) -> datetime | None:
    since = incident.closed_at or incident.opened_at
    if now - since > GIVEN_UP and incident.attempts >= len(_WAITS):
        return None
    return now + _WAITS[min(incident.attempts, len(_WAITS) - 1)]
