"""Rules: what is judged of the sync, by checks and alerts alike. Pure: evidence in, finding out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from crm_pipeline.sync.evidence import Evidence, Part

_LATE = timedelta(minutes=5)
"""Allowed on top of an interval: runs queue and take their time."""
_LONG = timedelta(hours=1)
"""Nobody waits so long for a webhook without a fault."""
_DAY = timedelta(days=1)
_MANY = 0.05
"""A share of records, or of pairs, that no longer are single mishaps."""
_FEW = 10
"""So many are too few to speak of a share."""
_MANY_PUSHES = 1000
"""So many contacts that the CRM does not take are an error, however many others it takes."""
_ECHO_RATE = 0.1
_BUDGET_LOW = 0.8


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict of one rule."""

    passed: bool
    figures: Mapping[str, int | float]
    text: str = ""
    """What to do, or why it does not matter."""
    grave: bool = False
    """An error: the sync does not do what it is for. Otherwise a warning."""


Rule: TypeAlias = Callable[[Evidence], Finding]


def freshness(seen: Evidence) -> Finding:
    """While polling is on, the CRM was read to its end within the last two intervals, or all is so new."""
    figures: dict[str, int | float] = {"interval_minutes": _minutes(seen.interval)}
    read_at, began_at = seen.reads.last_read_at, seen.reads.began_at
    if read_at is not None:
        figures["age_minutes"] = _minutes(seen.now - read_at)
    if not seen.polling:
        return Finding(passed=True, figures=figures, text="polling is switched off")
    since = read_at or began_at
    if since is None:
        return Finding(passed=True, figures=figures, text="nothing has begun yet")
    age = seen.now - since
    text = "" if read_at is not None else "the CRM was never read to its end"
    grave = age > max(_DAY, 4 * seen.interval)
    return Finding(passed=age <= 2 * seen.interval + _LATE, figures=figures, text=text, grave=grave)


def watermark(seen: Evidence) -> Finding:
    """The watermark follows what is read, and is not ahead of the clock."""
    mark, newest = seen.reads.watermark, seen.reads.newest
    if mark is None:
        return Finding(passed=True, figures={}, text="nothing was read yet, or the CRM gives no times")
    behind = _minutes(newest - mark) if newest is not None and newest > mark else 0
    figures = {"age_minutes": _minutes(seen.now - mark), "behind_minutes": behind}
    if mark - seen.now > _LATE:
        text = "the CRM's clock is ahead of ours: what changes until then may be missed"
        return Finding(passed=False, figures=figures, text=text, grave=True)
    return Finding(passed=behind <= _minutes(_LATE), figures=figures)


def budget(seen: Evidence) -> Finding:
    """Our share of the account's calls of the day is not nearly used up."""
    spent = seen.budget
    figures: dict[str, int | float] = {"calls_today": spent.today}
    if not spent.daily_limit:
        return Finding(passed=True, figures=figures, text="no limit of the day is known")
    ours = spent.daily_limit * seen.daily_share
    used = spent.today
    if spent.daily_left is not None and spent.today:  # told today, and by everybody who uses the account
        used = max(used, spent.daily_limit - spent.daily_left)
        figures["account_left"] = spent.daily_left
    share = used / ours
    figures |= {"daily_limit": spent.daily_limit, "our_limit": int(ours), "share_used": round(share, 4)}
    text = "" if share < 1 else "the sync stands still until the account has calls again"
    return Finding(passed=share < _BUDGET_LOW, figures=figures, text=text, grave=share >= 1)


def record_shape(seen: Evidence) -> Finding:
    """No field of the mapping has vanished from the CRM's records, or holds another kind of value."""
    shape = seen.shape
    figures = {"fields": shape.fields, "vanished": len(shape.vanished), "changed": len(shape.changed)}
    told = [f"vanished: {', '.join(shape.vanished)}"] if shape.vanished else []
    told += [f"another kind of value: {', '.join(shape.changed)}"] if shape.changed else []
    return Finding(passed=not told, figures=figures, text="; ".join(told), grave=bool(shape.vanished))


def unknown_choices(seen: Evidence) -> Finding:
    """The CRM sends no value that the choices of a field do not know."""
    text = "add a choice or a synonym, then replay the rejects" if seen.unknown_choices else ""
    return Finding(passed=not seen.unknown_choices, figures={"rejected": seen.unknown_choices}, text=text)


def rejects(seen: Evidence) -> Finding:
    """No record, no webhook and no contact is rejected."""
    health = seen.health
    came, pushed = health.pull_rejects + health.webhook_rejects, health.push_rejects
    # A rejected webhook has landed no record.
    came_rate = _share(came, health.landed + health.webhook_rejects)
    push_rate = _share(pushed, health.contacts)
    figures = {
        "pull_rejects": health.pull_rejects,
        "webhook_rejects": health.webhook_rejects,
        "push_rejects": pushed,
        "landed": health.landed,
        "reject_rate": round(came_rate, 6),
        "push_reject_rate": round(push_rate, 6),
    }
    text = "crm-pipeline rejects list says which and why" if came or pushed else ""
    many = (came >= _FEW and came_rate > _MANY) or (pushed >= _FEW and push_rate > _MANY)
    return Finding(passed=not text, figures=figures, text=text, grave=many or pushed >= _MANY_PUSHES)


def counts_add_up(seen: Evidence) -> Finding:
    """Every record ended somewhere or waits, and every rejected one has its reasons kept."""
    health = seen.health
    rejected = health.outcomes.get("rejected", 0)
    # A record that is tried again waits; its old reasons stay until it has got through.
    explained = rejected <= health.pull_rejects <= rejected + health.waiting
    accounted = sum(health.outcomes.values()) + health.waiting == health.landed
    figures = {"landed": health.landed, "waiting": health.waiting, **health.outcomes}
    passed = accounted and explained
    return Finding(passed=passed, figures=figures, grave=not passed)


def known_choices(seen: Evidence) -> Finding:
    """No other program wrote a deal status or task status that nobody knows."""
    odd = {"deal_status": seen.health.odd_deal_status, "status": seen.health.odd_status}
    return Finding(passed=not any(odd.values()), figures={**odd, "contacts": seen.health.contacts})


def one_row_each(seen: Evidence) -> Finding:
    """Nobody has two rows under two spellings of one WhatsApp id, or two records in the CRM."""
    health = seen.health
    figures = {"doubled": health.doubled, "doubled_there": health.claimed, "contacts": health.contacts}
    return Finding(passed=not (health.doubled or health.claimed), figures=figures)


def backlog(seen: Evidence) -> Finding:
    """No webhook waits for longer than it takes a run to apply it."""
    health = seen.health
    figures: dict[str, int | float] = {"waiting": health.events_waiting}
    if health.oldest_event_at is None:
        return Finding(passed=True, figures=figures)
    age = seen.now - health.oldest_event_at
    figures["oldest_minutes"] = _minutes(age)
    return Finding(passed=age <= _LATE, figures=figures, grave=age > _LONG)


def sampled_parity(seen: Evidence) -> Finding:
    """Linked contacts with nothing to do agree with their records as last read: a sample, in turn."""
    found = seen.sample
    figures = {"compared": found.compared, "differing": found.differing}
    text = "crm-pipeline reconcile compares all, --repair mends them" if found.differing else ""
    grave = found.differing >= _FEW and found.differing > _MANY * found.compared
    return Finding(passed=not found.differing, figures=figures, text=text, grave=grave)


def echoes(seen: Evidence) -> Finding:
    """What was written to the CRM in the last day stayed as it was written."""
    rate = seen.came_back / seen.written if seen.written else 0.0
    figures = {"written": seen.written, "came_back": seen.came_back, "echo_rate": round(rate, 4)}
    passed = seen.came_back < _FEW or rate <= _ECHO_RATE
    text = "" if passed else "the CRM, or another program in it, changes what is written"
    return Finding(passed=passed, figures=figures, text=text)


RULES: Mapping[Part, tuple[Rule, ...]] = {
    "connection": (freshness, watermark, budget, record_shape, unknown_choices),
    "contacts": (rejects, backlog, counts_add_up, known_choices, one_row_each, sampled_parity),
    "push": (echoes,),
}


def judge(seen: Evidence, parts: Iterable[Part]) -> dict[str, Finding]:
    """The verdicts of the rules of these parts, by name."""
    return {rule.__name__: rule(seen) for part in parts for rule in RULES[part]}


def _share(part: int, whole: int) -> float:
    """Of nothing, anything is all."""
    return part / whole if whole else float(part > 0)


def _minutes(span: timedelta) -> float:
    return round(span / timedelta(minutes=1), 1)
