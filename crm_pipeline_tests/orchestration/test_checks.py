"""The rules as asset checks."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pytest

from crm_pipeline.definitions import defs
from crm_pipeline.orchestration import checks
from crm_pipeline.sync.rules import RULES
from crm_pipeline_tests.orchestration.fakes import WELL, FakeService, resources

DEFINITIONS = [checks.connection_checks, checks.contact_checks, checks.push_checks]


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_checks_stop_nothing(definition: dg.AssetChecksDefinition) -> None:
    """A check never blocks what comes after it."""
    assert [spec for spec in definition.check_specs if spec.blocking] == []


def test_every_rule_is_a_check_that_says_what_it_is_for() -> None:
    """None is forgotten, and each has its sentence in the UI."""
    specs = {spec.name: spec.description for each in DEFINITIONS for spec in each.check_specs}
    assert specs == {rule.__name__: rule.__doc__ for part in RULES.values() for rule in part}


def test_severity_and_figures_reach_dagster(instance: dg.DagsterInstance) -> None:
    """A failed check carries its figures as numbers; what is grave is an error, all else a warning."""
    service = FakeService(summary=replace(WELL, pull_rejects=90, push_rejects=1, odd_status=1))
    result = defs.resolve_job_def("pull_job").execute_in_process(
        instance=instance, resources=resources(service)
    )
    found = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert found["rejects"].severity is dg.AssetCheckSeverity.ERROR
    assert found["known_choices"].severity is dg.AssetCheckSeverity.WARN
    assert found["rejects"].metadata["pull_rejects"].value == 90
    assert found["rejects"].description == "crm-pipeline rejects list says which and why"
    assert [name for name, each in found.items() if each.passed] == [
        "freshness", "watermark", "budget", "record_shape", "unknown_choices",
        "backlog", "one_row_each", "sampled_parity",
    ]  # fmt: skip
