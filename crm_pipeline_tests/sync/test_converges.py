"""The sync as a whole, against everything that can happen to it: it converges and loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.engine import Engine

from crm_pipeline_tests.sync.two_sides import Narrow, Wide


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("model", [Wide, Narrow], ids=["wide", "narrow"])
def test_it_converges(model: type[Narrow], quick_engine: Engine) -> None:
    """Wide: three contacts, all that can happen. Narrow: one contact, edits and crashes."""
    machine = type(model.__name__, (model,), {"engine": quick_engine})
    run_state_machine_as_test(
        machine, settings=settings(stateful_step_count=model.steps, report_multiple_bugs=False)
    )
