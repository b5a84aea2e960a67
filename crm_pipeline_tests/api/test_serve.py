"""`serve` as a process: what it refuses to start with, how it ends, and what a kill cannot undo."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from crm_pipeline.api.app import doubts
from crm_pipeline.cli.main import run
from crm_pipeline.settings import load_settings
from crm_pipeline_tests.api.served import KEY, SECRET, WEBHOOK
from crm_pipeline_tests.databases import PostgresDatabases, SqliteDatabases

PROJECT = Path(__file__).parents[2]
PATIENCE = 60.0
SAID = {
    "EXTERNAL_CRM_ENABLED": "true",
    "EXTERNAL_CRM_API_URL": "http://127.0.0.1:9/contacts",
    "EXTERNAL_CRM_API_KEY": "key-of-the-crm",
    "EXTERNAL_CRM_WEBHOOK_SECRET": SECRET,
    "CRM_API_KEY": KEY,
    "RATE_LIMIT": "1000000",
}


def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start ``crm-pipeline serve`` with these variables, and those above unless they are empty here."""
    said = {name: value for name, value in {**SAID, **variables}.items() if value}
    return subprocess.Popen(
        [sys.executable, "-m", "crm_pipeline.cli.main", "serve", "--port", "0", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), **said},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def served(*arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve until the block ends; the process and its URL."""
    with start(*arguments, **variables) as process:
        errors: list[str] = []
        assert process.stderr is not None
        reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
        reader.start()  # a full pipe would stop it
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("The API answers at "), (line, errors)
            yield process, line.split()[4]
        finally:
            process.kill()
            reader.join()


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call ``serve`` in this process, which must refuse to start; what it says."""

    def call(*arguments: str, **variables: str) -> str:
        for name, value in {**SAID, **variables}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            run(["serve", "--port", "0", *arguments])
        assert ended.value.code == 1
        told = capsys.readouterr()
        assert told.out == ""
        return told.err

    return call


@pytest.mark.parametrize(
    "variables, named",
    [
        ({"CRM_API_KEY": ""}, "CRM_API_KEY"),
        ({"EXTERNAL_CRM_WEBHOOK_SECRET": ""}, "EXTERNAL_CRM_WEBHOOK_SECRET"),
        ({"API_AUTH_ENABLED": "flase"}, "API_AUTH_ENABLED"),
        ({"RATE_LIMIT_STORAGE": "nonsense://u:pw@host"}, "RATE_LIMIT_STORAGE"),
        ({"DATABASE_URL": "sqlite:////proc/nowhere/crm.db"}, "proc"),
    ],
)
def test_it_does_not_start_unsafe(refusal: Callable[..., str], variables: dict[str, str], named: str) -> None:
    """One line says what is wrong, without a traceback or a secret."""
    told = refusal(**variables)
    assert named in told
    assert len(told.splitlines()) == 1
    assert not any(secret in told for secret in (KEY, SECRET, "pw"))


def test_it_does_not_start_on_a_database_that_forgets(
    refusal: Callable[..., str], postgresql_databases: PostgresDatabases
) -> None:
    """The tests' own server trades durability for speed: just what must not be served."""
    with postgresql_databases.fresh() as url:
        told = refusal(DATABASE_URL=url)
    assert told == "Settings: DATABASE_URL: the database is not durable: fsync is off\n"


def test_a_taken_port_is_told(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program listens there."""
    monkeypatch.setenv("DAGSTER_HOME", str(Path.cwd()))
    before = logging.root.handlers[:]
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            assert "Address already in use" in refusal("--port", str(taken.getsockname()[1]))
    finally:
        logging.root.handlers[:] = before


@pytest.mark.parametrize("length, told", [(15, 1), (16, 0)])
@pytest.mark.parametrize("name", ["crm_api_key", "external_crm_webhook_secret"])
def test_a_secret_that_can_be_guessed_is_told(name: str, length: int, told: int) -> None:
    """Each by its variable, and never by its value; one of two is enough."""
    chosen: dict[str, Any] = {name: f"{'long-enough-' * 2},{'x' * length}"}
    warnings = list(doubts(load_settings(**chosen)))
    assert len(warnings) == told
    assert all(name.upper() in warning and "xx" not in warning for warning in warnings)


def test_an_open_door_is_told_loudly(tmp_path: Path) -> None:
    """API_AUTH_ENABLED=false: it says so, listens on this machine alone, and reads the file it is given."""
    env_file = tmp_path / "my.env"
    env_file.write_text("API_AUTH_ENABLED=false\nEXTERNAL_CRM_ENABLED=true\n")
    process = start(
        "--env-file", str(env_file), CRM_API_KEY="", EXTERNAL_CRM_WEBHOOK_SECRET="", EXTERNAL_CRM_ENABLED=""
    )
    with process:
        assert process.stderr is not None
        assert process.stdout is not None
        warning = json.loads(process.stderr.readline())
        url = process.stdout.readline().split()[4]
        try:
            assert url.startswith("http://127.0.0.1:")
            answer = requests.post(url + WEBHOOK, json={"phone": "628111111111"}, timeout=10)
            assert answer.status_code == 200
        finally:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert warning["level"] == "warning"
    assert "API_AUTH_ENABLED" in warning["event"].upper()
    assert process.returncode == 0


class Senders:
    """Programs that post webhooks until the API is gone, and remember what was acknowledged."""

    def __init__(self, number: int, gone: type[Exception] = requests.exceptions.ConnectionError) -> None:
        """So many at once. ``gone`` is what may end them: half an answer is no ConnectionError."""
        self.acknowledged: list[str] = []
        self._number = number
        self._gone = gone
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._count = 0

    def _next(self) -> str:
        with self._lock:
            self._count += 1
            return f"evt-{self._count}"

    def _send(self, url: str) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not self._stop.is_set():
                name = self._next()
                headers = {"X-API-Key": KEY, "webhook-id": name}
                body = {"secret": SECRET, "phone": f"62811{int(name[4:]):07}", "name": name}
                try:
                    answer = session.post(url + WEBHOOK, json=body, headers=headers, timeout=10)
                except self._gone:
                    return
                if answer.status_code == 200:
                    with self._lock:
                        self.acknowledged.append(name)

    @contextmanager
    def sending(self, url: str) -> Iterator[None]:
        """Send while the block lasts."""
        self._stop.clear()
        with ThreadPoolExecutor(self._number) as threads:
            calls = [threads.submit(self._send, url) for _ in range(self._number)]
            try:
                yield
            finally:
                self._stop.set()
        for call in calls:
            call.result()

    def wait_for(self, number: int) -> None:
        """Wait until so many were acknowledged."""
        deadline = time.monotonic() + PATIENCE
        while len(self.acknowledged) < number:
            assert time.monotonic() < deadline
            time.sleep(0.005)


def landed(database: Path) -> Sequence[str]:
    """Names of the events in a database."""
    with closing(sqlite3.connect(database)) as connection:
        return [name for (name,) in connection.execute("SELECT event_id FROM webhook_events")]


def test_a_kill_loses_nothing_that_was_acknowledged(sqlite_databases: SqliteDatabases) -> None:
    """Killed under load, twice: every 200 is in the table, once, and the next process goes on from there."""
    senders = Senders(16, gone=requests.exceptions.RequestException)
    with sqlite_databases.fresh() as url:
        for _ in range(2):
            with served(DATABASE_URL=url) as (process, address), senders.sending(address):
                senders.wait_for(len(senders.acknowledged) + 150)
                process.kill()
        found = landed(Path(url.removeprefix("sqlite:///")))
    assert len(senders.acknowledged) >= 300
    assert len(set(found)) == len(found)
    assert set(senders.acknowledged) <= set(found)


def test_a_stop_under_load_breaks_no_answer(sqlite_databases: SqliteDatabases) -> None:
    """SIGTERM: requests under way are answered, then it ends with 0; what was not answered did not land."""
    senders = Senders(8)
    with sqlite_databases.fresh() as url:
        with served(DATABASE_URL=url) as (process, address), senders.sending(address):
            senders.wait_for(100)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        found = landed(Path(url.removeprefix("sqlite:///")))
    assert set(senders.acknowledged) == set(found)
