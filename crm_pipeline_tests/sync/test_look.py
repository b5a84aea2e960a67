"""Look-ups before creates: together, and not at all where reading everything takes fewer calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Engine

from crm_pipeline import ExternalCrmService
from crm_pipeline.connection import Connection, Limits
from crm_pipeline.connectors.base import Record
from crm_pipeline.settings import load_settings
from crm_pipeline.simulators.generic import CONTACTS_PATH, GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline.store.engine import writing
from crm_pipeline.store.tables import contacts
from crm_pipeline_tests.fakes import FakeCrm
from crm_pipeline_tests.sync.world import World

_NEW = [f"62811000{each:05d}@c.us" for each in range(30)]
_SPELLINGS = 4
_CONNECTION = """
listing: {page_size: 10}
pagination: {style: cursor, size_param: limit, cursor_param: cursor, cursor_path: next_cursor}
writing: {lookup: {param: phone}}
"""


class _Meeting(FakeCrm):
    """Answers a look-up only when so many are asked for at once."""

    meeting = threading.Barrier(3)

    def find(self, unique_value: str) -> list[Record] | None:
        """By phone."""
        self.meeting.wait(20)
        return super().find(unique_value)


def _insert(engine: Engine, ids: Sequence[str]) -> None:
    with writing(engine) as tx:
        for each in ids:
            tx.execute(contacts.insert().values(id=each))


def test_contacts_are_looked_up_together(world: World) -> None:
    """Each under its spellings in turn; all are created once, but the one that is there in another."""
    world.crm = _Meeting(reads_by_modified=False)
    world.connection = Connection(limits=Limits(in_flight=3))
    known = world.crm.put(phone="081100000004")
    _insert(world.engine, _NEW[:6])
    assert world.push().counts.created == 5
    assert len(world.crm.records) == 6
    assert known in {row["external_id"] for row in world.rows("links")}


@pytest.fixture
def crm() -> GenericCrm:
    """A CRM with 50 contacts: five pages."""
    return GenericCrm.seeded(50)


@pytest.fixture
def service(crm: GenericCrm, engine: Engine, tmp_path: Path) -> Iterator[ExternalCrmService]:
    """The service between that CRM, which cannot tell what changed, and a database that holds it all."""
    file = tmp_path / "connection.yaml"
    file.write_text(_CONNECTION)
    with running(create_app(crm)) as url:
        settings = load_settings(
            external_crm_enabled=True,
            external_crm_api_url=f"{url}{CONTACTS_PATH}",
            external_crm_api_key=crm.options.api_key,
            external_crm_config=file,
        )
        with ExternalCrmService(engine, settings=settings) as service:
            assert service.sync()[0].api_calls == 5
            yield service


def test_few_creates_are_looked_up(service: ExternalCrmService, engine: Engine) -> None:
    """Under each spelling of the number, before one call creates the record."""
    _insert(engine, _NEW[:1])
    assert service.push().api_calls == _SPELLINGS + 1


def test_many_creates_are_looked_for_by_reading_everything(
    service: ExternalCrmService, crm: GenericCrm, engine: Engine
) -> None:
    """Five pages instead of 120 look-ups; who was made there meanwhile is found in any spelling."""
    crm.create(phone="+62 811-0000-0007")
    _insert(engine, _NEW)
    report = service.push()
    assert report.counts.created == len(_NEW) - 1
    assert report.api_calls == 6 + report.counts.created + report.counts.updated
    assert len(crm.records) == 50 + len(_NEW)
