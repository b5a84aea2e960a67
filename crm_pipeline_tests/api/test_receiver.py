"""The receiver: webhooks land in a process of their own, and its end is nobody's but its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from crm_pipeline.api.problems import Problem
from crm_pipeline.api.receiver import Receiver
from crm_pipeline.settings import load_settings
from crm_pipeline.store.engine import open_database, reading, writing
from crm_pipeline.sync.reception import Arrival
from crm_pipeline_tests.api.served import RECORD, SETTINGS, eventually

PATIENCE = 60.0
"""Seconds: on a busy machine, a process takes some of them to start."""
NAMED = Arrival(dict(RECORD), "event-1", "request-1")


@pytest.fixture
def receiver(database_url: str) -> Iterator[Receiver]:
    """A receiver on an empty database."""
    with closing(Receiver(load_settings(**SETTINGS, database_url=database_url))) as receiver:
        yield receiver


@contextmanager
def opened(url: str) -> Iterator[sa.Engine]:
    """A database, closed afterwards."""
    engine = open_database(url)
    yield engine
    engine.dispose()


def events(database_url: str) -> int:
    """How many webhooks have landed."""
    with opened(database_url) as engine, reading(engine) as tx:
        return int(tx.execute(sa.text("SELECT count(*) FROM webhook_events")).scalar_one())


def play(receiver: Receiver, scene: Coroutine[Any, Any, None]) -> None:
    """Let something happen in an event loop, which the receiver does not outlive."""

    async def whole() -> None:
        with closing(receiver):
            await asyncio.wait_for(scene, 2 * PATIENCE)

    asyncio.run(whole())


async def land(receiver: Receiver) -> None:
    """Land one webhook."""
    await receiver([NAMED], PATIENCE)


def test_what_is_answered_is_stored(receiver: Receiver, database_url: str) -> None:
    """Receipts come in the order of the arrivals; the same event is the same."""

    async def scene() -> None:
        first, second = await receiver([NAMED, Arrival({"name": "nobody"}, "event-2", "request-1")], PATIENCE)
        assert (first.event_id, first.action, first.status) == ("event-1", "created", "landed")
        assert (second.event_id, second.action) == ("event-2", "rejected")
        assert (await receiver([NAMED], PATIENCE))[0].duplicate

    play(receiver, scene())
    assert events(database_url) == 2


def test_everybody_gets_their_own(receiver: Receiver, database_url: str) -> None:
    """Many at once, some with several, one that cannot be stored: each hears of theirs alone."""
    bodies = [
        [Arrival(dict(RECORD, name=f"{a} {b}"), f"{a}-{b}", "r") for b in range(a % 3)] for a in range(50)
    ]

    async def scene() -> None:
        answers = await asyncio.gather(*(receiver(arrivals, PATIENCE) for arrivals in bodies))
        told = [[receipt.event_id for receipt in receipts] for receipts in answers]
        assert told == [[arrival.event_id for arrival in arrivals] for arrivals in bodies]

    play(receiver, scene())
    assert events(database_url) == sum(map(len, bodies))


def test_who_is_slow_is_told_so_and_stored(receiver: Receiver, database_url: str) -> None:
    """No answer in time is no promise, and no loss either."""

    async def scene() -> None:
        await receiver([NAMED], PATIENCE)
        os.kill(receiver.pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await receiver([Arrival(dict(RECORD, name="Sinta"), "event-2", "request-2")], 0.05)
        os.kill(receiver.pid, signal.SIGCONT)
        again = await receiver([Arrival(dict(RECORD, name="Sinta"), "event-2", "request-2")], PATIENCE)
        assert again[0].duplicate

    play(receiver, scene())
    assert events(database_url) == 2


def test_a_killed_receiver_starts_anew(receiver: Receiver, database_url: str) -> None:
    """Who waited is asked to come again, and is then served."""
    arrival = Arrival(dict(RECORD, name="Sinta"), "event-2", "request-2")

    async def scene() -> None:
        await receiver([NAMED], PATIENCE)
        os.kill(receiver.pid, signal.SIGSTOP)
        waiting = asyncio.create_task(receiver([arrival], PATIENCE))
        await asyncio.sleep(0)
        os.kill(receiver.pid, signal.SIGKILL)
        with pytest.raises(Problem) as refused:
            await waiting
        assert refused.value.status == 503
        assert (await receiver([arrival], PATIENCE))[0].status == "landed"

    play(receiver, scene())
    assert events(database_url) == 2


def test_killed_while_nobody_waits_it_is_back_for_the_next(receiver: Receiver, database_url: str) -> None:
    """Nobody hears of it."""

    async def scene() -> None:
        await receiver([NAMED], PATIENCE)
        killed = psutil.Process(receiver.pid)
        killed.kill()
        await asyncio.to_thread(eventually, lambda: not psutil.pid_exists(killed.pid))
        assert (await receiver([NAMED], PATIENCE))[0].duplicate

    play(receiver, scene())
    assert events(database_url) == 1


def test_without_room_for_a_process_it_tries_again(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes meanwhile is asked to come again."""

    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise BlockingIOError

    async def scene() -> None:
        await receiver([NAMED], PATIENCE)
        killed = psutil.Process(receiver.pid)
        killed.kill()
        await asyncio.to_thread(eventually, lambda: not psutil.pid_exists(killed.pid))
        with monkeypatch.context() as full:
            full.setattr(subprocess, "Popen", refuse)
            for _ in range(2):
                with pytest.raises(Problem) as refused:
                    await receiver([NAMED], PATIENCE)
                assert refused.value.status == 503
        assert (await receiver([NAMED], PATIENCE))[0].duplicate

    play(receiver, scene())


def test_a_receiver_that_hangs_is_ended(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it for ever, and the next webhook is stored."""

    async def scene() -> None:
        await receiver([NAMED], PATIENCE)
        hanging = receiver.pid
        os.kill(hanging, signal.SIGSTOP)
        monkeypatch.setattr("crm_pipeline.api.receiver.ANSWER_SECONDS", 0.2)
        with pytest.raises(Problem) as refused:
            await receiver([NAMED], PATIENCE)
        assert refused.value.status == 503
        monkeypatch.undo()
        assert (await receiver([NAMED], PATIENCE))[0].duplicate
        assert not psutil.pid_exists(hanging)

    play(receiver, scene())


def test_what_fails_there_is_answered_as_if_it_failed_here(receiver: Receiver, database_url: str) -> None:
    """The table is gone, then there again: a 503 as for any database that cannot be used."""

    async def scene() -> None:
        with opened(database_url) as engine:
            with writing(engine) as tx:
                tx.execute(sa.text("ALTER TABLE webhook_events RENAME TO elsewhere"))
            with pytest.raises(Problem) as refused:
                await receiver([NAMED], PATIENCE)
            with writing(engine) as tx:
                tx.execute(sa.text("ALTER TABLE elsewhere RENAME TO webhook_events"))
        assert refused.value.status == 503
        assert (await receiver([NAMED], PATIENCE))[0].status == "landed"

    play(receiver, scene())


def test_it_ends_when_it_is_closed(database_url: str) -> None:
    """No process stays behind."""
    receiver = Receiver(load_settings(**SETTINGS, database_url=database_url))
    pid = receiver.pid
    play(receiver, land(receiver))
    assert not psutil.pid_exists(pid)


def test_it_outlives_nobody(database_url: str) -> None:
    """Whoever started it is killed: it ends, too."""
    program = (
        "import time\n"
        "from crm_pipeline.api.receiver import Receiver\n"
        "from crm_pipeline.settings import load_settings\n"
        f"receiver = Receiver(load_settings(**{SETTINGS!r}, database_url={database_url!r}))\n"
        "print(receiver.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_it_finds_what_its_owner_finds(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service of the user's own, in a folder that only the owner's path names."""
    (tmp_path / "only_here.py").write_text(
        "from crm_pipeline import ExternalCrmService\n"
        "class Ours(ExternalCrmService):\n"
        "    def process_webhook(self, payload):\n"
        "        return super().process_webhook({**payload, 'name': 'By the hook'})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = load_settings(**SETTINGS, database_url=database_url, external_crm_service="only_here:Ours")
    receiver = Receiver(settings)
    play(receiver, land(receiver))
    with opened(database_url) as engine, reading(engine) as tx:
        (payload,) = tx.execute(sa.text("SELECT payload FROM webhook_events")).scalars()
    assert "By the hook" in payload
