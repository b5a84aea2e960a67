"""CRMs of quite different style, each described by the file on its page and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from crm_pipeline.service import ExternalCrmService
from crm_pipeline.settings import load_settings
from crm_pipeline.simulators.contacts import phone_of
from crm_pipeline.simulators.serve import running
from crm_pipeline.store.engine import writing
from crm_pipeline_tests.connectors.styles import KEY, STYLES, Style
from crm_pipeline_tests.project.pages import DOCS, blocks

COUNT = 231
FILES = {
    block.mark.removeprefix("style: ").strip(): block.text
    for block in blocks(DOCS / "describe-your-own-crm.md", "yaml")
    if block.mark.startswith("style")
}


@contextlib.contextmanager
def synced(name: str) -> Iterator[tuple[Style, ExternalCrmService]]:
    """A CRM of a style, and a service with the page's file."""
    style, app = STYLES[name](COUNT)
    Path("connection.yaml").write_text(FILES[name])
    with running(app) as url:
        settings = load_settings(
            external_crm_enabled=True,
            external_crm_api_url=url,
            external_crm_api_key=KEY,
            external_crm_config=Path("connection.yaml"),
            external_crm_push="auto",
            database_url="sqlite:///crm.db",
        )
        with ExternalCrmService(settings=settings) as service:
            yield style, service


def execute(service: ExternalCrmService, statement: str, **values: Any) -> list[Any]:
    """Plain SQL of another program."""
    with writing(service.engine) as tx:
        done = tx.execute(sa.text(statement), values)
        return list(done.scalars()) if done.returns_rows else []


def record(style: Style, contact_id: str) -> dict[str, Any]:
    """The one record that holds a contact's phone."""
    digits = contact_id.removesuffix("@c.us")
    (found,) = [each for each in style.records.values() if digits in repr(each)]
    return found


@pytest.mark.parametrize("name", STYLES)
def test_a_style_is_synced_both_ways_by_its_file(name: str) -> None:
    """All is read, what changed is asked for, an edit and new contacts go out, and then it is quiet."""
    with synced(name) as (style, service):
        service.sync()
        assert execute(service, "SELECT count(*) FROM contacts") == [COUNT]
        edited = f"{phone_of(7)}@c.us"
        execute(service, "UPDATE contacts SET nama = 'Nama Baru' WHERE id = :id", id=edited)
        for number in range(3):
            new = f"62819990000{number + 1}@c.us"
            execute(
                service,
                "INSERT INTO contacts (id, nama, deal_status) VALUES (:id, 'Uji Coba', 'prospect')",
                id=new,
            )
        listed, before = len(style.listed), len(style.records)
        report = service.sync()[-1]
        assert (report.counts.updated, report.counts.created, report.counts.rejected) == (1, 3, 0)
        assert len(style.records) == before + 3
        assert "Baru" in repr(record(style, edited))
        assert any("filter" in key or "where" in key for key in style.listed[listed])
        assert service.sync()[-1].counts.seen == 0
        assert len(style.records) == before + 3


def test_a_list_goes_out_with_all_that_it_held() -> None:
    """A change of one phone keeps the others: this CRM replaces the whole list."""
    with synced("brackets") as (style, service):
        service.sync()
        execute(service, "UPDATE contacts SET cp_first = '+628123' WHERE id = :id", id=f"{phone_of(7)}@c.us")
        service.sync()
        phones = style.records["id0007"]["phoneNumberData"]
    assert [each["phoneNumber"] for each in phones] == ["+628123", "+6281"]
    assert phones[1]["type"] == "Fax"


def test_times_go_out_and_come_in_in_the_zone_of_the_crm() -> None:
    """A naive local time with microseconds is the same moment on both sides."""
    with synced("json") as (style, service):
        service.sync()
        statement = "UPDATE contacts SET meeting_date = '2026-03-01 02:00:00.000000' WHERE id = :id"
        execute(service, statement, id=f"{phone_of(7)}@c.us")
        service.sync()
        assert style.records["Contoh 7 / Bandung"]["contact_date"] == "2026-03-01 09:00:00.000000"
        assert service.sync()[-1].counts.seen == 0


def test_a_renamed_record_is_linked_anew() -> None:
    """Its old id is gone and its new one is unknown: the contact stays one, and edits go to the new id."""
    with synced("json") as (style, service):
        service.sync()
        renamed = style.records.pop("Contoh 7 / Bandung") | {"name": "Renamed & moved"}
        style.records["Renamed & moved"] = renamed | {"modified": "2026-01-06 00:00:00.000000"}
        service.sync()
        service.sync()
        execute(service, "UPDATE contacts SET nama = 'Sesudah' WHERE id = :id", id=f"{phone_of(7)}@c.us")
        service.sync()
        assert style.records["Renamed & moved"]["lead_name"] == "Sesudah"
        assert execute(service, "SELECT count(*) FROM contacts WHERE archived_at IS NULL") == [COUNT]
        assert len(style.records) == COUNT
