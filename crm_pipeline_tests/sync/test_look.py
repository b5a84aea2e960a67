"""Look-ups before creates: together, and not at all where reading everything takes fewer calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Engine

from crm_pipeline import ExternalCrmService, instants
from crm_pipeline.connection import Connection, Limits
from crm_pipeline.connectors.base import CrmUnavailableError, Page, Record, Resume, Window
from crm_pipeline.settings import load_settings
from crm_pipeline.simulators.generic import CONTACTS_PATH, GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline.store import state
from crm_pipeline.store.engine import writing
from crm_pipeline.store.tables import contacts
from crm_pipeline.sync.reports import Counts
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


class _Listing(FakeCrm):
    """Lists by id, and falls silent after so many pages."""

    pages_left = 10**6

    def _listed(self, window: Window) -> list[str]:
        return sorted(super()._listed(window))

    def pages(self, window: Window, resume: Resume | None = None) -> Iterator[Page]:
        """Some of them."""
        for page in super().pages(window, resume):
            if not self.pages_left:
                raise CrmUnavailableError("silence")
            self.pages_left -= 1
            yield page


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


@pytest.mark.parametrize("run", [World.push, World.sync])
def test_going_on_with_an_interrupted_pull_is_no_look(world: World, run: Callable[[World], object]) -> None:
    """What the pull had read before it was interrupted may have been edited since."""
    crm = world.crm = _Listing(page_size=10, checks_expected=False)
    records = [crm.put(phone=each, notes="as it was") for each in _NEW]
    world.sync()
    crm.pages_left = 2
    with pytest.raises(CrmUnavailableError):
        world.sync()
    crm.pages_left = 10**6
    crm.put(records[0], notes="theirs")
    world.sql("UPDATE contacts SET notes = 'ours' WHERE id = :id", id=_NEW[0])
    run(world)
    (conflict,) = world.rows("conflicts")
    assert (conflict["external"], conflict["internal"]) == ("theirs", "ours")


def test_the_rest_of_an_interrupted_pull_is_no_measure_of_one(
    service: ExternalCrmService, crm: GenericCrm, engine: Engine
) -> None:
    """It took one call, and the next pull would take five: a create is looked up."""
    with writing(engine) as tx:
        state.finish_run(
            tx,
            state.start_run(tx, "default", "pull", "run", instants.now()),
            instants.now(),
            state="done",
            counts=Counts(unchanged=10).as_dict(),
            api_calls=1,
        )
    _insert(engine, _NEW[:1])
    assert service.push().api_calls == _SPELLINGS + 1
    assert len(crm.records) == 50 + 1
