"""The sync as a whole, against everything that can happen to it: it converges and loses nothing."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.engine import Engine

from crm_pipeline_tests.sync.two_sides import PHONES, TwoSides


def test_wide(quick_engine: Engine) -> None:
    """Three contacts, all that can happen."""
    machine = type("Wide", (TwoSides,), {"engine": quick_engine})
    run_state_machine_as_test(machine, settings=settings(stateful_step_count=20, report_multiple_bugs=False))


def test_narrow(quick_engine: Engine) -> None:
    """One contact, so that crashes and edits fall densely on the same fields."""
    machine = type("Narrow", (TwoSides,), {"engine": quick_engine, "phones": PHONES[:1]})
    run_state_machine_as_test(machine, settings=settings(stateful_step_count=15, report_multiple_bugs=False))
