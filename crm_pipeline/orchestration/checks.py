"""Asset checks: the rules as Dagster shows them. They warn, with figures; they stop nothing."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from crm_pipeline.orchestration.assets import contacts, external_contacts, outbound_push
from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.sync.evidence import Part
from crm_pipeline.sync.rules import RULES, judge


def _specs(asset: dg.AssetsDefinition, part: Part) -> list[dg.AssetCheckSpec]:
    return [dg.AssetCheckSpec(rule.__name__, asset=asset, description=rule.__doc__) for rule in RULES[part]]


def _results(
    asset: dg.AssetsDefinition, part: Part, external_crm: ExternalCrm, database: Database
) -> Iterator[dg.AssetCheckResult]:
    with external_crm.service(database) as service:
        findings = judge(service.evidence(part), [part])
    for name, finding in findings.items():
        grave = dg.AssetCheckSeverity.ERROR if finding.grave else dg.AssetCheckSeverity.WARN
        yield dg.AssetCheckResult(
            asset_key=asset.key,
            check_name=name,
            passed=finding.passed,
            severity=grave,
            metadata=dict(finding.figures),
            description=finding.text or None,
        )


@dg.multi_asset_check(specs=_specs(external_contacts, "connection"))
def connection_checks(external_crm: ExternalCrm, database: Database) -> Iterator[dg.AssetCheckResult]:
    """Look after the connection."""
    yield from _results(external_contacts, "connection", external_crm, database)


@dg.multi_asset_check(specs=_specs(contacts, "contacts"))
def contact_checks(external_crm: ExternalCrm, database: Database) -> Iterator[dg.AssetCheckResult]:
    """Look after the contacts, in one reading of the database."""
    yield from _results(contacts, "contacts", external_crm, database)


@dg.multi_asset_check(specs=_specs(outbound_push, "push"))
def push_checks(external_crm: ExternalCrm, database: Database) -> Iterator[dg.AssetCheckResult]:
    """Look after what was written."""
    yield from _results(outbound_push, "push", external_crm, database)
