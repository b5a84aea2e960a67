"""Asset checks: rules over one summary of the database. They warn, with figures; they stop nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

import dagster as dg

from crm_pipeline import instants
from crm_pipeline.orchestration.assets import contacts, external_contacts
from crm_pipeline.orchestration.resources import ExternalCrm

_LATE = timedelta(minutes=5)
"""Allowed on top of an interval: runs queue and take their time."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the checks look at."""

    polling: bool
    interval_minutes: int
    last_read_at: datetime | None
    """When the latest complete read of what is new in the CRM began."""
    contacts: int
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
    odd_deal_status: int
    """Contacts with a deal status that is none of the known."""
    odd_status: int
    """Contacts with a task status that is none of the known."""
    doubled: int
    """Contacts whose id, written canonically, another contact has too."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict of one check."""

    passed: bool
    figures: Mapping[str, int | float]
    text: str = ""


Rule: TypeAlias = Callable[[Health, datetime], Finding]


def freshness(health: Health, now: datetime) -> Finding:
    """While polling is on, the CRM was read within the last two intervals."""
    figures: dict[str, int | float] = {"interval_minutes": health.interval_minutes}
    if health.last_read_at is not None:
        figures["age_minutes"] = round((now - health.last_read_at) / timedelta(minutes=1), 1)
    if not health.polling:
        return Finding(passed=True, figures=figures, text="polling is switched off")
    if health.last_read_at is None:
        return Finding(passed=False, figures=figures, text="the CRM was never read to its end")
    allowed = 2 * timedelta(minutes=health.interval_minutes) + _LATE
    late = now - health.last_read_at > allowed
    return Finding(passed=not late, figures=figures, text="the last complete read is too old" if late else "")


def rejects(health: Health, _now: datetime) -> Finding:
    """No record and no contact is rejected."""
    found = health.pull_rejects + health.push_rejects
    rate = health.pull_rejects / health.landed if health.landed else 0.0
    figures = {
        "pull_rejects": health.pull_rejects,
        "push_rejects": health.push_rejects,
        "landed": health.landed,
        "reject_rate": round(rate, 6),
    }
    text = "crm-pipeline rejects list tells which and why" if found else ""
    return Finding(passed=not found, figures=figures, text=text)


def counts_add_up(health: Health, _now: datetime) -> Finding:
    """Every record ended somewhere or still waits, and every rejected one has its reasons kept."""
    ended = sum(health.outcomes.values())
    rejected = health.outcomes.get("rejected", 0)
    # A record that is tried again waits, and its old reasons stay until it has got through.
    explained = rejected <= health.pull_rejects <= rejected + health.waiting
    figures = {"landed": health.landed, "waiting": health.waiting, **health.outcomes}
    return Finding(passed=ended + health.waiting == health.landed and explained, figures=figures)


def known_choices(health: Health, _now: datetime) -> Finding:
    """No other program wrote a deal status or task status that nobody knows."""
    odd = {"deal_status": health.odd_deal_status, "status": health.odd_status}
    return Finding(passed=not any(odd.values()), figures={**odd, "contacts": health.contacts})


def one_row_each(health: Health, _now: datetime) -> Finding:
    """No person has two rows under two spellings of one WhatsApp id."""
    figures = {"doubled": health.doubled, "contacts": health.contacts}
    return Finding(passed=not health.doubled, figures=figures)


CONNECTION_RULES: tuple[Rule, ...] = (freshness,)
CONTACT_RULES: tuple[Rule, ...] = (rejects, counts_add_up, known_choices, one_row_each)


def _specs(asset: dg.AssetsDefinition, rules: Sequence[Rule]) -> list[dg.AssetCheckSpec]:
    return [dg.AssetCheckSpec(rule.__name__, asset=asset, description=rule.__doc__) for rule in rules]


def _results(
    asset: dg.AssetsDefinition, rules: Sequence[Rule], external_crm: ExternalCrm
) -> Iterator[dg.AssetCheckResult]:
    with external_crm.service() as service:
        health = Health(**service.health())
    now = instants.now()
    for rule in rules:
        finding = rule(health, now)
        yield dg.AssetCheckResult(
            asset_key=asset.key,
            check_name=rule.__name__,
            passed=finding.passed,
            severity=dg.AssetCheckSeverity.WARN,
            metadata=dict(finding.figures),
            description=finding.text or None,
        )


@dg.multi_asset_check(specs=_specs(external_contacts, CONNECTION_RULES))
def connection_checks(external_crm: ExternalCrm) -> Iterator[dg.AssetCheckResult]:
    """Look after the connection."""
    yield from _results(external_contacts, CONNECTION_RULES, external_crm)


@dg.multi_asset_check(specs=_specs(contacts, CONTACT_RULES))
def contact_checks(external_crm: ExternalCrm) -> Iterator[dg.AssetCheckResult]:
    """Look after the contacts, in one reading of the database."""
    yield from _results(contacts, CONTACT_RULES, external_crm)
