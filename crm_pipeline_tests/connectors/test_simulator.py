"""The connector against the bundled simulator: every page style, and both ways of writing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crm_pipeline.connectors.base import CrmAnswerError, Window, Write, WriteStatus
from crm_pipeline.connectors.rest import RestConnector
from crm_pipeline.simulators.faults import parse_faults
from crm_pipeline.simulators.generic import CONTACTS_PATH, CrmOptions, GenericCrm, create_app
from crm_pipeline.simulators.options import ENVELOPES, STYLES
from crm_pipeline.simulators.serve import running
from crm_pipeline_tests.connectors.conftest import KEY, Connect

Simulate = Callable[[GenericCrm], str]
CONTACTS = 23
COMBINATIONS = [
    (style, envelope)
    for style in STYLES
    for envelope in ENVELOPES
    if envelope != "array" or style in {"link_header", "header_cursor", "none"}
]
"""A bare array tells nothing of page numbers or offsets."""


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Serve simulated CRMs until the test ends; gives the URL of the contacts."""
    with contextlib.ExitStack() as stack:
        yield lambda crm: stack.enter_context(running(create_app(crm))) + CONTACTS_PATH


def crm_of(*faults: str, count: int = CONTACTS, **options: Any) -> GenericCrm:
    """A seeded CRM with pages of ten."""
    made = CrmOptions(**{"api_key": KEY, "page_size": 10, **options})
    return GenericCrm.seeded(count, seed=1, options=made, faults=parse_faults(faults))


def ids_of(connector: RestConnector, window: Window | None = None) -> list[str | None]:
    """Ids of all records, page after page."""
    return [record.external_id for page in connector.pages(window or Window()) for record in page.records]


def told(style: str, envelope: str) -> dict[str, str]:
    """What has to be configured: nothing, but for what no first page can tell."""
    if style == "header_cursor":
        return {"style": "header_cursor"}
    if (style, envelope) == ("cursor", "contacts"):  # elsewhere paging.next.after goes into ?after=
        return {"style": "cursor", "cursor_path": "paging.next.after"}
    return {}


def test_every_style_and_envelope_is_read(simulate: Simulate, connector: Connect) -> None:
    """Nearly without a word of configuration every listing is read whole, each record once."""
    url = simulate(crm_of())
    for style, envelope in COMBINATIONS:
        params, settings = {"pagination": style, "envelope": envelope}, told(style, envelope)
        made = connector(url, listing={"params": params}, pagination=settings)
        ids = ids_of(made)
        assert (len(ids), len(set(ids))) == (CONTACTS, CONTACTS), (style, envelope)


def test_window_is_read_from_the_crm(simulate: Simulate, connector: Connect) -> None:
    """Modified-since and -before cover the window and nothing of it is missing."""
    crm = crm_of()
    made = connector(
        simulate(crm),
        listing={
            "modified_since": {"param": "updated_since"},
            "modified_before": {"param": "updated_before"},
        },
    )
    everything = [record for page in made.pages(Window()) for record in page.records]
    until = datetime.now(UTC) - timedelta(days=5)
    since = until - timedelta(days=15)
    expected = {
        record.external_id
        for record in everything
        if record.modified_at is not None and since <= record.modified_at < until
    }
    assert 0 < len(expected) < CONTACTS
    assert set(ids_of(made, Window(since, until))) == expected


@pytest.mark.parametrize("envelope", ["records", "jsonapi"])
def test_create_update_read_and_find(envelope: str, simulate: Simulate, connector: Connect) -> None:
    """A contact goes round: created, changed, read back and found, in flat JSON and in JSON:API."""
    wrap = {"envelope": "data"} if envelope == "jsonapi" else {}
    made = connector(
        simulate(crm_of(envelope=envelope)),
        writing={
            "create": {"method": "POST", "path": "", **wrap},
            "update": {"method": "PATCH", "path": "/{id}", **wrap},
            "lookup": {"param": "phone"},
        },
    )
    (created,) = made.write([Write("k", None, {"phone": "628110001@c.us", "name": "Uji"})])
    assert created.status is WriteStatus.WRITTEN
    assert created.external_id is not None
    (changed,) = made.write([Write("k2", created.external_id, {"notes": "baru"})])
    assert changed.record is not None
    assert changed.record.payload["notes"] == "baru"
    (read,) = made.read([created.external_id, "no-such"])
    assert (read.payload["name"], read.payload["notes"]) == ("Uji", "baru")
    found = made.find("628110001@c.us")
    assert found is not None
    assert [record.external_id for record in found] == [created.external_id]
    assert made.find("nobody") == []


def test_batches(simulate: Simulate, connector: Connect) -> None:
    """Creates and updates go in one batch each; a bad row is refused alone."""
    crm = crm_of()
    batch = {"path": "/batch", "envelope": "records"}
    made = connector(simulate(crm), writing={"batch_create": batch, "batch_update": batch})
    known = ids_of(made)[0]
    results = made.write(
        [
            Write("a", None, {"phone": "628110001@c.us", "name": "Uji"}),
            Write("b", known, {"notes": "baru"}),
            Write("c", None, {"phone": "628110002@c.us", "capacity": "a lot"}),
            Write("d", "no-such", {"notes": "baru"}),
        ]
    )
    assert [result.status for result in results] == [
        WriteStatus.WRITTEN,
        WriteStatus.WRITTEN,
        WriteStatus.REFUSED,
        WriteStatus.GONE,
    ]
    assert crm.calls["batch"] == 2


def test_write_cut_after_it_was_applied_makes_no_twin(simulate: Simulate, connector: Connect) -> None:
    """The reply is lost, the write is not repeated, and the record can be found."""
    made = connector(simulate(crm_of("cut_after_write=1", count=0)), writing={"lookup": {"param": "phone"}})
    (result,) = made.write([Write("k", None, {"phone": "628110001@c.us"})])
    assert result.status is WriteStatus.UNKNOWN
    found = made.find("628110001@c.us")
    assert found is not None
    assert len(found) == 1


@pytest.mark.parametrize("fault", ["rate_limit=2:date", "server_error=2:503", "cut_in_answer=2"])
def test_passing_faults_are_ridden_out(fault: str, simulate: Simulate, connector: Connect) -> None:
    """Every second request fails in passing, and still everything is read once."""
    assert len(ids_of(connector(simulate(crm_of(fault))))) == CONTACTS


@pytest.mark.parametrize(
    "fault", ["repeated_cursor", "foreign_next_link", "foreign_redirect", "html_login=2", "truncated_json=2"]
)
@pytest.mark.parametrize("style", ["cursor", "next_link", "page"])
def test_lasting_faults_fail_the_pull(fault: str, style: str, simulate: Simulate, connector: Connect) -> None:
    """A listing that cannot be trusted ends in an error, not in fewer records."""
    if fault == "foreign_next_link" and style != "next_link":
        style = "link_header"
    made = connector(simulate(crm_of(fault, pagination=style)))
    with pytest.raises(CrmAnswerError):
        ids_of(made)


def test_broken_records_do_not_stop_a_page(simulate: Simulate, connector: Connect) -> None:
    """Whatever is wrong with some records, all of them come through for the mapping to judge."""
    assert len(ids_of(connector(simulate(crm_of("bad_record=3", count=60))))) == 60
