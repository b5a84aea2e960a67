"""Pushes with several calls under way: how many, in what order, and what is left when one goes wrong."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest

from crm_pipeline.cli.processes import wait_until
from crm_pipeline.connection import Connection, Limits
from crm_pipeline.connectors.base import (
    CrmRefusedError,
    CrmUnavailableError,
    Record,
    Write,
    WriteResult,
    WriteStatus,
)
from crm_pipeline.sync.context import lease_held
from crm_pipeline.sync.errors import LeaseLostError
from crm_pipeline.sync.push import push_changed
from crm_pipeline.sync.sender import SILENT_IN_A_ROW
from crm_pipeline_tests.fakes import Crash, FakeCrm
from crm_pipeline_tests.sync.world import World

BATCH, PATIENCE = 50, 30.0
Make: TypeAlias = Callable[[], list[WriteResult]]
Around: TypeAlias = Callable[[int, Make], list[WriteResult]]
"""What happens around a call: its number, from 1, and what makes it."""


def as_usual(_number: int, make: Make) -> list[WriteResult]:
    """Nothing."""
    return make()


@dataclass
class BusyCrm(FakeCrm):
    """A CRM that watches how many calls are with it at once."""

    batch_size: int = BATCH
    around: Around = as_usual
    under_way: int = 0
    most: int = 0
    asked: list[list[str | None]] = field(default_factory=list)
    """The records of each call, in the order they came."""
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def write(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Count, and upsert."""
        with self._counting:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.asked.append([write.external_id for write in writes])
            number = len(self.asked)
        try:
            return self.around(number, lambda: FakeCrm.write(self, writes))
        finally:
            with self._counting:
                self.under_way -= 1


class Scene(World):
    """A world whose contacts were all pulled, and then edited here."""

    def edit_all(self, contacts: int, in_flight: int) -> BusyCrm:
        """Set it up."""
        self.connection = Connection(limits=Limits(in_flight=in_flight))
        self.crm = crm = BusyCrm()
        for number in range(contacts):
            crm.put(phone=f"62812{number:08}@c.us", name=f"Nama {number}")
        self.sync()
        crm.clock.pass_by(minutes=1)
        self.sql("UPDATE contacts SET notes = 'of ' || id")
        return crm

    def intents(self) -> Counter[str]:
        """How many are in each state."""
        return Counter(row["state"] for row in self.rows("intents"))

    def told(self) -> Counter[str]:
        """How often each record was written."""
        assert isinstance(self.crm, FakeCrm)
        return Counter(str(write.external_id) for write in self.crm.writes)

    def check_all_told_once(self, contacts: int) -> None:
        """Every record holds the edit and was written once; nothing is left to do."""
        crm = self.crm
        assert all(record["notes"] == f"of {record['phone']}" for record in crm.records.values())
        assert (len(self.told()), set(self.told().values())) == (contacts, {1})
        assert self.intents()["open"] == 0
        assert self.sync()[-1].counts.seen == 0


@pytest.fixture
def scene(world: World) -> Scene:
    """An empty one, on both databases."""
    return Scene(world.engine)


def meeting_of(calls: int) -> Around:
    """Calls that are answered when so many are under way, and not before."""
    meeting = threading.Barrier(calls)

    def around(_number: int, make: Make) -> list[WriteResult]:
        meeting.wait(PATIENCE)
        return make()

    return around


def test_so_many_calls_are_under_way_and_no_more(scene: Scene) -> None:
    """Twelve batches, three at once; each with its intents stored, and as few as can be."""
    crm = scene.edit_all(12 * BATCH, in_flight=3)
    crm.around = meeting_of(3)
    crm.on_write = lambda write: opened.append(write.key)
    opened: list[str] = []
    report = scene.sync()[-1]
    assert (report.counts.updated, report.pending) == (12 * BATCH, 0)
    assert (crm.most, len(crm.asked)) == (3, 12)
    assert set(opened) == {row["id"] for row in scene.rows("intents")}
    crm.around = as_usual
    scene.check_all_told_once(12 * BATCH)


def test_intents_are_stored_before_and_planning_goes_on_meanwhile(scene: Scene) -> None:
    """While two calls are away, the next two are planned, and none after that."""
    crm, planned = scene.edit_all(6 * BATCH, in_flight=2), threading.Event()
    opened: list[int] = []

    def around(number: int, make: Make) -> list[WriteResult]:
        if number == 1:
            wait_until(lambda: scene.intents()["open"] == 4 * BATCH, seconds=PATIENCE, what="a plan")
            planned.set()
        assert planned.wait(PATIENCE)
        opened.append(scene.intents()["open"])
        return make()

    crm.around = around
    scene.sync()
    assert opened[:2] == [4 * BATCH, 4 * BATCH]
    assert max(opened) <= 4 * BATCH
    crm.around = as_usual
    scene.check_all_told_once(6 * BATCH)


def test_one_after_another_where_only_one_may_be(scene: Scene) -> None:
    """With ``in_flight: 1`` the working thread makes each call, in the order of the contacts."""
    crm, threads = scene.edit_all(5 * BATCH, in_flight=1), set[threading.Thread]()

    def around(_number: int, make: Make) -> list[WriteResult]:
        threads.add(threading.current_thread())
        assert scene.intents()["open"] == BATCH
        return make()

    crm.around = around
    scene.sync()
    assert (threads, crm.most) == ({threading.current_thread()}, 1)
    ids = [key for asked in crm.asked for key in asked]
    assert ids == sorted(ids, key=str)
    crm.around = as_usual
    scene.check_all_told_once(5 * BATCH)


def test_a_refusal_ends_the_push_in_order(scene: Scene) -> None:
    """No further call is made; those under way are awaited and confirmed; the rest was never sent."""
    crm = scene.edit_all(10 * BATCH, in_flight=3)
    meet, refused = meeting_of(3), threading.Event()

    def around(number: int, make: Make) -> list[WriteResult]:
        if number > 3:
            return make()
        if number == 2:
            meet(number, list)
            refused.set()
            raise CrmRefusedError("the CRM refuses us")
        made = meet(number, make)
        assert refused.wait(PATIENCE)
        return made

    crm.around = around
    with pytest.raises(CrmRefusedError, match="refuses us"):
        scene.sync()
    made = len(crm.asked)
    assert 3 <= made <= 5  # before the refusal came in, answers may have made room
    states = scene.intents()
    assert (states["open"], states["confirmed"]) == (0, (made - 1) * BATCH)
    assert states["failed"] > 0
    crm.around = as_usual
    scene.sync()
    scene.check_all_told_once(10 * BATCH)


def test_an_answer_that_is_lost_is_looked_for(scene: Scene) -> None:
    """The others are confirmed; the next run reads back what nobody knows the end of."""
    crm = scene.edit_all(8 * BATCH, in_flight=4)

    def around(number: int, make: Make) -> list[WriteResult]:
        made = make()
        if number != 3:
            return made
        return [WriteResult(WriteStatus.UNKNOWN, each.external_id, reason="no answer") for each in made]

    crm.around = around
    report = scene.sync()[-1]
    assert (report.counts.updated, report.pending) == (7 * BATCH, BATCH)
    assert scene.intents() == {"confirmed": 7 * BATCH, "open": BATCH}
    scene.push()
    scene.check_all_told_once(8 * BATCH)


@pytest.mark.parametrize("status", [WriteStatus.UNKNOWN, WriteStatus.FAILED])
def test_a_silent_crm_is_not_asked_on_and_on(scene: Scene, status: WriteStatus) -> None:
    """After so many calls in a row without a verdict a push ends, and says why."""
    crm = scene.edit_all(20 * BATCH, in_flight=4)
    crm.around = lambda number, _make: [
        WriteResult(status, key, reason="the CRM did not answer in time") for key in crm.asked[number - 1]
    ]
    with pytest.raises(CrmUnavailableError, match="did not answer in time"):
        scene.sync()
    assert SILENT_IN_A_ROW <= len(crm.asked) <= SILENT_IN_A_ROW + 3
    states = scene.intents()
    assert states["open"] == (len(crm.asked) * BATCH if status is WriteStatus.UNKNOWN else 0)
    assert states["open"] + states["failed"] == states.total()
    crm.around = as_usual
    scene.push()
    scene.check_all_told_once(20 * BATCH)


@contextmanager
def never_answered(crm: BusyCrm, calls: int, then: Callable[[], None]) -> Iterator[None]:
    """So many calls are made together; one does something then, and the others get no answer in the block."""
    meet, over = meeting_of(calls), threading.Event()

    def around(number: int, make: Make) -> list[WriteResult]:
        made = meet(number, make)
        if number == calls:
            then()
        else:
            over.wait(PATIENCE)
        return made

    crm.around = around
    yield
    over.set()
    crm.around = as_usual


def _open(*batches: int) -> list[dict[str, int]]:
    return [{"open": number * BATCH} for number in batches]


def test_a_worker_that_dies_leaves_what_is_open(scene: Scene) -> None:
    """Killed with four calls under way, all written and none answered: each is found, none goes twice."""
    crm = scene.edit_all(9 * BATCH, in_flight=4)

    def die() -> None:
        raise Crash

    with never_answered(crm, 4, die):
        with pytest.raises(Crash):
            scene.sync()
        assert scene.intents() in _open(4, 8)  # perhaps the next were planned
        assert len(crm.asked) == 4
    scene.push()
    scene.check_all_told_once(9 * BATCH)


def test_a_worker_that_was_replaced_confirms_nothing(scene: Scene) -> None:
    """Another one took over while calls were under way: their intents stay open, and no call follows."""
    crm = scene.edit_all(9 * BATCH, in_flight=3)
    steal = "UPDATE leases SET holder = 'another' WHERE name = 'default'"
    with never_answered(crm, 3, lambda: scene.sql(steal)):
        with pytest.raises(LeaseLostError):
            scene.sync()
        assert scene.intents() in _open(3, 6)
        assert len(crm.asked) == 3
    scene.sql("DELETE FROM leases")
    scene.push()
    scene.check_all_told_once(9 * BATCH)


def test_an_interrupt_waits_for_nothing(scene: Scene) -> None:
    """Ctrl-C while calls are under way ends the push at once, as a kill does."""
    crm, context, over = scene.edit_all(9 * BATCH, in_flight=8), scene.context(), threading.Event()

    def around(_number: int, make: Make) -> list[WriteResult]:
        made = make()
        over.wait(PATIENCE)
        return made

    def interrupt(_done: int, _total: int | None) -> None:
        wait_until(lambda: len(crm.writes) == 8 * BATCH, seconds=PATIENCE, what="the writes")
        raise KeyboardInterrupt

    crm.around = around
    with lease_held(context), pytest.raises(KeyboardInterrupt):
        push_changed(context, interrupt, just_pulled=True)
    assert scene.intents() == {"open": 8 * BATCH}
    over.set()
    crm.around = as_usual
    scene.push()
    scene.check_all_told_once(9 * BATCH)


def test_news_that_a_look_brings_while_a_call_is_away_is_kept(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to a write settles what was written, and not the rest of the record as it was before."""
    crm, looked = scene.edit_all(4 * BATCH, in_flight=2), threading.Event()
    crm.reads_by_modified = crm.answers_with_record = False
    first = next(key for key, record in crm.records.items() if record["phone"] == "6281200000000@c.us")

    def around(_number: int, make: Make) -> list[WriteResult]:
        made = make()
        assert looked.wait(PATIENCE)
        return made

    def read(keys: Sequence[str]) -> list[Record]:
        found = FakeCrm.read(crm, keys)
        if first in keys:
            return found
        wait_until(lambda: len(crm.writes) >= 2 * BATCH, seconds=PATIENCE, what="the first writes")
        crm.clock.pass_by(minutes=1)
        crm.put(first, name="Baru")
        looked.set()
        return [*found, crm.record(first)]

    crm.around = around
    monkeypatch.setattr(crm, "read", read)
    scene.push()
    link = next(row for row in scene.rows("links") if row["external_id"] == first)
    assert link["internal_shadow"]["nama"] == link["external_shadow"]["nama"] == "Baru"
    monkeypatch.undo()
    scene.sync()
    assert set(scene.told().values()) == {1}
    assert scene.contact("6281200000000@c.us")["nama"] == crm.records[first]["name"] == "Baru"
    assert {row["side"] for row in scene.rows("contact_changes") if row["field"] == "nama"} == {"external"}


def test_one_record_is_not_linked_to_two_contacts(scene: Scene) -> None:
    """A CRM that answers two creates with one record: the second is rejected, and the push goes on."""
    crm = scene.edit_all(0, in_flight=2)
    for number in range(3):
        scene.sql("INSERT INTO contacts (id, nama) VALUES (:id, 'Baru')", id=f"6281999{number:06}@c.us")

    def around(_number: int, make: Make) -> list[WriteResult]:
        first, second, third = make()
        return [first, second._replace(external_id=first.external_id, record=first.record), third]

    crm.around = around
    report = scene.sync()[-1]
    assert (report.counts.created, report.counts.rejected) == (2, 1)
    assert len({row["external_id"] for row in scene.rows("links")}) == 2
