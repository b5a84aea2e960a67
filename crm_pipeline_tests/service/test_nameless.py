"""Contacts without a name, at vendors that will not have one without a last name."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from crm_pipeline import ExternalCrmService
from crm_pipeline.settings import load_settings
from crm_pipeline.store.engine import reading, writing
from crm_pipeline_tests.connectors.vendors import account

ID = "6281100000001@c.us"


def edit(engine: Engine, statement: str, **values: str | None) -> None:
    """Another program writes with plain SQL."""
    with writing(engine) as tx:
        tx.execute(text(statement), {"id": ID, **values})


@pytest.mark.parametrize("vendor, field", [("salesforce", "LastName"), ("zoho", "Last_Name")])
def test_a_contact_without_a_name_goes_out(engine: Engine, vendor: str, field: str) -> None:
    """Created with a placeholder, which never becomes its name; a name given and taken away goes out, too."""
    with account(vendor) as made:
        settings = load_settings(
            external_crm_enabled=True,
            external_crm_type=vendor,
            external_crm_api_url=made.url,
            external_crm_api_key="sim-key",
        )
        with ExternalCrmService(engine, settings=settings) as service:
            service.sync()
            edit(engine, "INSERT INTO contacts (id, deal_status) VALUES (:id, 'prospect')")
            told: list[str] = []
            for name in (None, "Uji", None):
                if told:
                    edit(engine, "UPDATE contacts SET nama = :nama WHERE id = :id", nama=name)
                report = service.push()
                assert (report.counts.rejected, report.counts.created + report.counts.updated) == (0, 1)
                service.poll_external_crm()
                told.append(made.read()[0].payload[field])
                with reading(engine) as tx:
                    assert tx.execute(text("SELECT nama FROM contacts")).scalar_one() == name
                assert service.push().counts.seen == 0
            assert told == ["-", "Uji", "-"]
