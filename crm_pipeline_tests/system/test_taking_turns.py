"""Writers of one SQLite file take turns: real processes on a real file."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import OperationalError

from crm_pipeline.cli.processes import wait_until
from crm_pipeline.store import engine as store_engine
from crm_pipeline.store import taking_turns
from crm_pipeline.store.engine import open_database, writing
from crm_pipeline_tests.databases import SqliteDatabases

_OTHER = """
import sys
from crm_pipeline.store.engine import open_database, writing
with writing(open_database(sys.argv[1])) as tx:
    tx.exec_driver_sql("INSERT INTO leases (name, holder, expires_at) VALUES ('other', '', '')")
"""


@pytest.fixture
def url(sqlite_databases: SqliteDatabases) -> Iterator[str]:
    """A database of its own."""
    with sqlite_databases.fresh() as fresh:
        yield fresh


@pytest.fixture
def worker(url: str) -> Iterator[Engine]:
    """Who writes one transaction after the other."""
    opened = open_database(url)
    yield opened
    opened.dispose()


@contextmanager
def waiting_to_write(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that wants to write, once it stands and waits."""
    started = subprocess.Popen([sys.executable, "-c", _OTHER, url])
    try:
        wait_until(lambda: _waits(url), seconds=60, what="the other process", every=0.01)
        yield started
    finally:
        started.kill()
        started.wait()


def _waits(url: str) -> bool:
    """Whether somebody is the one who comes in next."""
    file = _file(url)
    if not file.exists():
        return False
    with file.open() as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _file(url: str) -> Path:
    return Path(f"{make_url(url).database}-turn")


def _has_written(tx: Connection) -> bool:
    return tx.exec_driver_sql("SELECT 1 FROM leases WHERE name = 'other'").scalar_one_or_none() is not None


def test_who_waits_comes_in_between_two_transactions_of_a_worker(
    url: str, worker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However soon the worker begins its next one."""
    monkeypatch.setattr(taking_turns, "_COURTESY_SECONDS", 60.0)
    with ExitStack() as stack:
        with writing(worker):
            stack.enter_context(waiting_to_write(url))
        with writing(worker) as tx:
            assert _has_written(tx)


def test_who_waits_and_is_killed_is_waited_for_no_more(
    url: str, worker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is free with its end."""
    monkeypatch.setattr(taking_turns, "_COURTESY_SECONDS", 10_000.0)
    with writing(worker), waiting_to_write(url) as other:
        other.kill()
        other.wait()
    with writing(worker) as tx:
        assert not _has_written(tx)


def test_who_waits_and_is_stopped_does_not_keep_others_out(
    url: str, worker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is let in first for a while, and then passed."""
    monkeypatch.setattr(taking_turns, "_COURTESY_SECONDS", 0.05)
    with ExitStack() as stack:
        with writing(worker):
            other = stack.enter_context(waiting_to_write(url))
            other.send_signal(signal.SIGSTOP)
        with writing(worker) as tx:
            assert not _has_written(tx)
        other.send_signal(signal.SIGCONT)
        assert other.wait() == 0
        with writing(worker) as tx:
            assert _has_written(tx)


def test_without_a_place_to_wait_at_it_is_written_all_the_same(url: str, worker: Engine) -> None:
    """Taking turns is a courtesy; that one writes at a time is SQLite's doing."""
    _file(url).mkdir()
    with writing(worker) as tx:
        tx.exec_driver_sql("INSERT INTO leases (name, holder, expires_at) VALUES ('other', '', '')")
    with writing(worker) as tx:
        assert _has_written(tx)


def test_a_database_that_stays_locked_says_so(
    url: str, worker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the error that stands for a database that cannot be used now."""
    monkeypatch.setattr(store_engine, "_BUSY_TIMEOUT_MS", 50)
    second = open_database(url)
    with (
        writing(worker),
        pytest.raises(OperationalError, match="locked"),
        writing(second),
    ):
        pass
    second.dispose()
