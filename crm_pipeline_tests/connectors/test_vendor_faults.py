"""The vendors' connectors where a simulated account misbehaves: readings end, and nothing goes elsewhere."""

from __future__ import annotations

import pytest

from crm_pipeline.connectors.base import CrmAnswerError
from crm_pipeline.simulators.faults import FaultError, parse_faults
from crm_pipeline.simulators.vendor import BROKEN, VendorCrm
from crm_pipeline.simulators.vendors import SIMULATIONS
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import FieldMapping
from crm_pipeline_tests.connectors.vendors import account, preset

VENDORS = sorted(SIMULATIONS)


@pytest.mark.parametrize("kind", VENDORS)
def test_a_cursor_that_repeats_ends_the_reading(kind: str) -> None:
    """Page two again and again: an error, and neither an endless run nor a short listing."""
    with account(kind, 6_500, "repeated_cursor") as made:
        with pytest.raises(CrmAnswerError, match="never end"):
            made.ids()
        assert made.connector.calls <= 4


@pytest.mark.parametrize("kind", VENDORS)
def test_links_to_elsewhere_are_not_followed(kind: str) -> None:
    """Salesforce's is refused; HubSpot's is not needed; Zoho has none, and the fault is refused."""
    if kind == "zoho":
        with pytest.raises(FaultError, match="no links"):
            VendorCrm.seeded(SIMULATIONS[kind].vendor, 1, faults=parse_faults(["foreign_next_link"]))
        return
    with account(kind, 2_100, "foreign_next_link=http://127.0.0.1:9") as made:
        if kind == "salesforce":
            with pytest.raises(CrmAnswerError, match="no way to it"):
                made.ids()
        else:
            assert len(set(made.ids())) == 2_100


@pytest.mark.parametrize("kind", VENDORS)
def test_broken_records_are_rejected_and_stop_no_other(kind: str) -> None:
    """One in ten is broken, of every kind; exactly those do not become contacts; an edit mends one."""
    with account(kind, 120, "bad_record=10") as made:
        mapping = FieldMapping(preset(kind, made.url))
        rejected = set()
        for record in made.read():
            try:
                mapping.to_contact(record.payload)
            except RecordRejected:
                rejected.add(record.external_id)
        assert rejected == set(made.crm.broken)
        assert set(made.crm.broken.values()) == set(BROKEN)
        mended = min(made.crm.broken)
        made.crm.edit(mended, **{made.crm.vendor.names["notes"]: "mended"})
        assert mended not in made.crm.broken
        (again,) = made.connector.read([mended])
        assert mapping.to_contact(again.payload)["notes"] == "mended"


@pytest.mark.parametrize("kind", VENDORS)
def test_redirects_are_not_followed(kind: str) -> None:
    """To another host least of all: the credential would go along."""
    with account(kind, 3, "foreign_redirect=http://127.0.0.1:9") as made:
        with pytest.raises(CrmAnswerError, match="not followed"):
            made.ids()
        assert made.connector.calls == 1
