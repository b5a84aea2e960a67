"""Asset checks: rules over one summary of the database. They warn, with figures; they stop nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

import dagster as dg

from crm_pipeline import instants
from crm_pipeline.orchestration.assets import contacts, external_contacts
from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.sync.health import Health

_LATE = timedelta(minutes=5)
"""Allowed on top of an interval: runs queue and take their time."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rules look at."""

    health: Health
    polling: bool
    """The polling flag."""
    interval: timedelta
    """From one poll to the next."""
    now: datetime


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict of one rule."""

    passed: bool
    figures: Mapping[str, int | float]
    text: str = ""
    """What to do, or why it does not matter."""


Rule: TypeAlias = Callable[[Evidence], Finding]


def freshness(seen: Evidence) -> Finding:
    """While polling is on, the CRM was read to its end within the last two intervals."""
    figures: dict[str, int | float] = {"interval_minutes": seen.interval / timedelta(minutes=1)}
    read_at = seen.health.last_read_at
    if read_at is not None:
        figures["age_minutes"] = round((seen.now - read_at) / timedelta(minutes=1), 1)
    if not seen.polling:
        return Finding(passed=True, figures=figures, text="polling is switched off")
    if read_at is None:
        return Finding(passed=False, figures=figures, text="the CRM was never read to its end")
    return Finding(passed=seen.now - read_at <= 2 * seen.interval + _LATE, figures=figures)


def rejects(seen: Evidence) -> Finding:
    """No record and no contact is rejected."""
    health = seen.health
    figures = {
        "pull_rejects": health.pull_rejects,
        "push_rejects": health.push_rejects,
        "landed": health.landed,
        "reject_rate": round(health.pull_rejects / health.landed, 6) if health.landed else 0.0,
    }
    found = health.pull_rejects + health.push_rejects
    text = "crm-pipeline rejects list says which and why" if found else ""
    return Finding(passed=not found, figures=figures, text=text)


def counts_add_up(seen: Evidence) -> Finding:
    """Every record ended somewhere or waits, and every rejected one has its reasons kept."""
    health = seen.health
    rejected = health.outcomes.get("rejected", 0)
    # A record that is tried again waits; its old reasons stay until it has got through.
    explained = rejected <= health.pull_rejects <= rejected + health.waiting
    accounted = sum(health.outcomes.values()) + health.waiting == health.landed
    figures = {"landed": health.landed, "waiting": health.waiting, **health.outcomes}
    return Finding(passed=accounted and explained, figures=figures)


def known_choices(seen: Evidence) -> Finding:
    """No other program wrote a deal status or task status that nobody knows."""
    odd = {"deal_status": seen.health.odd_deal_status, "status": seen.health.odd_status}
    return Finding(passed=not any(odd.values()), figures={**odd, "contacts": seen.health.contacts})


def one_row_each(seen: Evidence) -> Finding:
    """Nobody has two rows, under two spellings of one WhatsApp id."""
    figures = {"doubled": seen.health.doubled, "contacts": seen.health.contacts}
    return Finding(passed=not seen.health.doubled, figures=figures)


def backlog(seen: Evidence) -> Finding:
    """No webhook waits for longer than it takes a run to apply it."""
    health = seen.health
    figures: dict[str, int | float] = {"waiting": health.events_waiting}
    if health.oldest_event_at is None:
        return Finding(passed=True, figures=figures)
    age = seen.now - health.oldest_event_at
    figures["oldest_minutes"] = round(age / timedelta(minutes=1), 1)
    return Finding(passed=age <= _LATE, figures=figures)


CONNECTION_RULES: tuple[Rule, ...] = (freshness,)
CONTACT_RULES: tuple[Rule, ...] = (rejects, backlog, counts_add_up, known_choices, one_row_each)


def _specs(asset: dg.AssetsDefinition, rules: Sequence[Rule]) -> list[dg.AssetCheckSpec]:
    return [dg.AssetCheckSpec(rule.__name__, asset=asset, description=rule.__doc__) for rule in rules]


def _results(
    asset: dg.AssetsDefinition, rules: Sequence[Rule], external_crm: ExternalCrm, database: Database
) -> Iterator[dg.AssetCheckResult]:
    with external_crm.service(database) as service:
        interval = timedelta(minutes=service.settings.external_crm_sync_interval)
        seen = Evidence(service.health(), service.polling, interval, instants.now())
    for rule in rules:
        finding = rule(seen)
        yield dg.AssetCheckResult(
            asset_key=asset.key,
            check_name=rule.__name__,
            passed=finding.passed,
            severity=dg.AssetCheckSeverity.WARN,
            metadata=dict(finding.figures),
            description=finding.text or None,
        )


@dg.multi_asset_check(specs=_specs(external_contacts, CONNECTION_RULES))
def connection_checks(external_crm: ExternalCrm, database: Database) -> Iterator[dg.AssetCheckResult]:
    """Look after the connection."""
    yield from _results(external_contacts, CONNECTION_RULES, external_crm, database)


@dg.multi_asset_check(specs=_specs(contacts, CONTACT_RULES))
def contact_checks(external_crm: ExternalCrm, database: Database) -> Iterator[dg.AssetCheckResult]:
    """Look after the contacts, in one reading of the database."""
    yield from _results(contacts, CONTACT_RULES, external_crm, database)
