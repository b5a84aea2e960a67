"""What all steps did together, on either database."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import Engine

from crm_pipeline.connectors.base import ConnectorSetupError
from crm_pipeline.service import ExternalCrmService
from crm_pipeline.settings import load_settings
from crm_pipeline.store import totals
from crm_pipeline.store.engine import reading, writing


def test_amounts_add_up_by_step_and_name(engine: Engine) -> None:
    """Nothing is stored for what did not happen; connections are kept apart."""
    for amounts in ({"created": 2, "seconds": 0.5, "updated": 0}, {"created": 3}):
        with writing(engine) as tx:
            totals.add(tx, "default", "apply", amounts)
            totals.add(tx, "another", "apply", {"created": 100})
    with reading(engine) as tx:
        assert totals.load(tx, "default") == {"apply": {"created": 5, "seconds": 0.5}}


def test_a_step_that_fails_counts_as_failed(engine: Engine) -> None:
    """With the time it took, and without outcomes."""
    away = load_settings(
        external_crm_enabled=True, external_crm_api_url="http://127.0.0.1:9", external_crm_type="hubspot"
    )
    with ExternalCrmService(engine, settings=away) as service:
        with pytest.raises(ConnectorSetupError):
            service.pull()
        ever = service.get_status()["totals"]["pull"]
    assert ever["runs_failed"] == 1
    assert ever.keys() == {"runs_failed", "seconds"}
