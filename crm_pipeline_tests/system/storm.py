"""A storm of webhooks while the API is killed and its database taken away: what became of each.

Every contact gets two webhooks, one after the other: the first makes it, the second changes it.
A sender repeats a webhook under its name until it is acknowledged, and never after that.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from crm_pipeline_tests.postgres import PostgresServer
from crm_pipeline_tests.system.stage import PROJECT, OtherProgram

KEY, SECRET = "key-of-the-storm", "secret-of-the-storm"
PATIENCE = 60.0
_PAUSE = 0.05
_REQUEST_SECONDS = 20.0
_APPLIER = """
import time
from sqlalchemy.exc import DBAPIError
from crm_pipeline import ExternalCrmService

while True:
    try:
        with ExternalCrmService() as service:
            while True:
                if service.events_pending():
                    service.apply_events()
                time.sleep(0.1)
    except DBAPIError:
        time.sleep(0.1)
"""
"""In place of Dagster's sensor and its runs: it applies what has landed."""


@dataclass(slots=True)
class Storm:
    """What was sent, and what came of it."""

    webhooks: int
    acknowledged: set[str] = field(default_factory=set)
    others: Counter[str] = field(default_factory=Counter)
    """Answers other than 200, and requests without one: each was sent again."""
    waits: list[float] = field(default_factory=list)
    """Seconds to each acknowledgement."""
    seconds: float = 0.0
    moments: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with each acknowledgement."""

    def wait(self, share: float) -> float:
        """Milliseconds within which this share of the acknowledgements came."""
        return sorted(self.waits)[int(len(self.waits) * share)] * 1000


Away = Callable[[], None]
"""Takes the database away for a while, and brings it back."""


def locked(path: Path, seconds: float) -> Away:
    """Lock an SQLite file against all writers."""

    def away() -> None:
        with closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)

    return away


def crashed(server: PostgresServer, seconds: float) -> Away:
    """Let a PostgreSQL server die, and start it again after a while."""

    def away() -> None:
        server.take_away()
        time.sleep(seconds)
        server.bring_back()

    return away


@contextmanager
def _api(folder: Path, port: int) -> Iterator[Callable[[], None]]:
    """Serve the API; what is yielded kills it and starts it again."""
    with ExitStack() as stack:

        def start() -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "crm_pipeline.cli.main", "serve", "--port", str(port)]
            with (folder / "api.log").open("ab") as log:
                process = subprocess.Popen(command, cwd=folder, env=_environment(), stdout=log, stderr=log)
            stack.callback(_end, process)
            return process

        running = [start()]

        def kill() -> None:
            running.pop().kill()
            running.append(start())

        _until_up(port)
        yield kill


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _environment() -> dict[str, str]:
    return {"PATH": os.defpath, "PYTHONPATH": str(PROJECT), "TZ": "Asia/Jakarta"}


def _until_up(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(_PAUSE)
    msg = "the API did not start"
    raise TimeoutError(msg)


def _configure(folder: Path, url: str) -> None:
    settings = {
        "EXTERNAL_CRM_ENABLED": "true",
        "EXTERNAL_CRM_API_URL": "http://127.0.0.1:9/contacts",
        "EXTERNAL_CRM_API_KEY": "key-of-the-crm",
        "EXTERNAL_CRM_WEBHOOK_SECRET": SECRET,
        "CRM_API_KEY": KEY,
        "RATE_LIMIT": "1000000",
        "DATABASE_URL": url,
    }
    (folder / ".env").write_text("".join(f'{name}="{value}"\n' for name, value in settings.items()))


def storm(
    folder: Path, url: str, *, webhooks: int, senders: int, kills: int, aways: Sequence[Away] = ()
) -> Storm:
    """Send, kill, take away; then judge what the database says.

    Args:
        folder: for the processes' files.
        url: of a migrated, durable database without rows.
        webhooks: how many, an even number.
        senders: connections at once.
        kills: how often the API is killed with SIGKILL.
        aways: each takes the database away once.
    """
    _configure(folder, url)
    told = Storm(webhooks)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with _api(folder, port) as kill, (folder / "applier.log").open("ab") as log:
        applier = subprocess.Popen(
            [sys.executable, "-c", _APPLIER], cwd=folder, env=_environment(), stdout=log, stderr=log
        )
        try:
            asyncio.run(_play(told, port, senders, _mischief(kill, kills, aways)))
            _judge(told, OtherProgram(url))
        finally:
            _end(applier)
    return told


def _mischief(kill: Away, kills: int, aways: Sequence[Away]) -> list[tuple[str, Away]]:
    """Kills, with what takes the database away between them."""
    steps: list[tuple[str, Away]] = [("killed", kill)] * kills
    for number, away in enumerate(aways, 1):
        steps.insert(number * len(steps) // (len(aways) + 1), ("database away", away))
    return steps


async def _play(told: Storm, port: int, senders: int, steps: Sequence[tuple[str, Away]]) -> None:
    started = time.monotonic()
    numbers = iter(range(told.webhooks // 2))
    tasks = [asyncio.create_task(_Sender(told, port).send(numbers)) for _ in range(senders)]
    for place, (what, do) in enumerate(steps, 1):
        while len(told.acknowledged) < told.webhooks * place // (len(steps) + 1):
            told.news.clear()
            await told.news.wait()
        told.moments.append(f"{what} after {len(told.acknowledged)}")
        await asyncio.to_thread(do)
    await asyncio.gather(*tasks)
    told.seconds = time.monotonic() - started


class _Sender:
    """One connection, opened again whenever it breaks."""

    def __init__(self, told: Storm, port: int) -> None:
        self._told = told
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, numbers: Iterator[int]) -> None:
        """Send the two webhooks of each contact, in order."""
        for number in numbers:
            for capacity in (1, 2):
                await self._until_acknowledged(number, capacity)
        await self._close()

    async def _until_acknowledged(self, number: int, capacity: int) -> None:
        name = f"storm-{number}-{capacity}"
        record = {"secret": SECRET, "phone": f"6281{number:08}", "name": "Storm", "capacity": capacity}
        body = json.dumps(record).encode()
        head = (
            "POST /api/external/webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"X-API-Key: {KEY}\r\nwebhook-id: {name}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(_REQUEST_SECONDS):
                    status = await self._ask(head.encode() + body)
            except (OSError, EOFError, TimeoutError) as error:
                self._told.others[_kind(error)] += 1
                await self._close()
            else:
                if status == 200:
                    self._told.acknowledged.add(name)
                    self._told.news.set()
                    self._told.waits.append(time.monotonic() - began)
                    return
                self._told.others[str(status)] += 1
            await asyncio.sleep(_PAUSE)

    async def _ask(self, request: bytes) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        if b"connection: close" in lines:
            await self._close()
        return int(head.split(b" ", 2)[1])

    async def _close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _kind(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "no answer in time" if isinstance(error, TimeoutError) else "cut"


def _judge(told: Storm, other: OtherProgram) -> None:
    """Hold what the database says against what was acknowledged."""
    deadline = time.monotonic() + PATIENCE
    while other.sql("SELECT count(*) FROM webhook_events WHERE outcome IS NULL") != [(0,)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    contacts = told.webhooks // 2
    landed = {row[0] for row in other.sql("SELECT event_id FROM webhook_events")}
    outcomes = dict(other.sql("SELECT outcome, count(*) FROM webhook_events GROUP BY outcome"))
    capacities = dict(other.sql("SELECT capacity, count(*) FROM contacts GROUP BY capacity"))
    changes = other.sql(
        "SELECT count(*), count(DISTINCT contact_id) FROM contact_changes WHERE field = 'capacity'"
    )
    claims = {
        "all were acknowledged in the end": len(told.acknowledged) == told.webhooks,
        "every acknowledged webhook is there, once": landed == told.acknowledged,
        "each was applied, and to the right effect": outcomes == {"created": contacts, "updated": contacts},
        "every contact is as its last webhook says": capacities == {2: contacts},
        "every contact was made, and then changed once": changes == [(contacts, contacts)],
    }
    told.wrong += [claim for claim, held in claims.items() if not held]
