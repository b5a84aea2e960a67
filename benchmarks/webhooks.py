"""Webhooks a second: our API with everything on, against a bare handler that commits each request.

Both run as processes of their own on SQLite with synchronous=FULL. Ours checks the key, the
secret and the limits, reads the JSON strictly, tells what applying will do, and lands the
webhook; the bare one is a Starlette handler that parses the body, inserts it and commits. They
take turns under the same load, and every answer that is not a 200 with its row stops the run.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from rounds import free_port, process, until_up

from crm_pipeline.cli.output import console, table
from crm_pipeline.store.engine import open_database
from crm_pipeline.store.migrate import upgrade

KEY, SECRET = "key-of-the-benchmark", "secret-of-the-benchmark"
PROJECT = Path(__file__).parents[1]
SETTINGS = {
    "EXTERNAL_CRM_ENABLED": "true",
    "EXTERNAL_CRM_API_URL": "http://127.0.0.1:9/contacts",
    "EXTERNAL_CRM_API_KEY": "key-of-the-crm",
    "EXTERNAL_CRM_WEBHOOK_SECRET": SECRET,
    "CRM_API_KEY": KEY,
    "RATE_LIMIT": "1000000",
}
_BODY = (
    b'{"secret":"%s","phone":"6281%%08d@c.us","name":"Sinta Lestari","company":"Acme Corp",'
    b'"event_name":"Tech Conference 2025","ticket_price":150000,"capacity":500,"status":"deal",'
    b'"meeting_date":"2025-02-15T10:00:00Z","event_date":"2025-06-20T09:00:00Z"}' % SECRET.encode()
)
REQUEST = (
    b"POST /api/external/webhook HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: %s\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (KEY.encode(), len(_BODY % 0))
).replace(b"%", b"%%") + _BODY


# The bare handler.


def serve_bare(port: int, path: str) -> None:
    """Serve the handler to compare with."""
    import orjson  # noqa: PLC0415 - only this process needs them
    import uvicorn  # noqa: PLC0415
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import Response  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    database = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)")

    async def handle(request: Request) -> Response:
        payload = orjson.loads(await request.body())
        database.execute("INSERT INTO events (payload) VALUES (?)", (orjson.dumps(payload).decode(),))
        return Response(b'{"success":true}', media_type="application/json")

    app = Starlette(routes=[Route("/api/external/webhook", handle, methods=["POST"])])
    uvicorn.run(app, port=port, log_level="warning", access_log=False)


# The load.


@dataclass(slots=True)
class Turn:
    """What one turn of one server came to."""

    waits: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.waits) / self.seconds

    def wait(self, share: float) -> float:
        """Milliseconds within which this share of the answers came."""
        return sorted(self.waits)[int(len(self.waits) * share)] * 1000


class _Caller(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self, numbers: Iterator[int], turn: Turn, until: float) -> None:
        self._numbers = numbers
        self._turn = turn
        self._until = until
        self._sent = 0.0
        self._held = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(REQUEST % next(self._numbers))

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, blank, body = self._held.partition(b"\r\n\r\n")
        if not blank or len(body) < _length(head):
            return
        self._held = b""
        now = time.perf_counter()
        self._turn.waits.append(now - self._sent)
        if not head.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(RuntimeError(body.decode()))
        elif now < self._until:
            self._send()
        else:
            self._transport.close()
            self.done.set_result(None)


def _length(head: bytes) -> int:
    start = head.lower().index(b"content-length: ") + 16
    return int(head[start:].partition(b"\r\n")[0])


async def _load(port: int, numbers: Iterator[int], connections: int, seconds: float) -> Turn:
    turn, loop, began = Turn(), asyncio.get_running_loop(), time.perf_counter()
    made = [
        await loop.create_connection(lambda: _Caller(numbers, turn, began + seconds), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(caller.done for _, caller in made))
    turn.seconds = time.perf_counter() - began
    return turn


# The comparison.


def compare(folder: Path, rounds: int, seconds: float, connections: int) -> tuple[list[Turn], list[Turn]]:
    """Turns of ours and of the bare handler."""
    url, bare_path = f"sqlite:///{folder}/ours.db", str(folder / "bare.db")
    engine = open_database(url)
    upgrade(engine)
    engine.dispose()
    ours_port, bare_port = free_port(), free_port()
    numbers = itertools.count()
    ours: list[Turn] = []
    bare: list[Turn] = []
    serve = ("-m", "crm_pipeline.cli.main", "serve", "--port", str(ours_port))
    with (
        process(*serve, log=folder / "log", **SETTINGS, DATABASE_URL=url),
        process(__file__, "--bare", str(bare_port), bare_path, log=folder / "log"),
    ):
        for port, turns in ((ours_port, ours), (bare_port, bare)):
            until_up(port)
            uvloop.run(_load(port, numbers, connections, 0.5))  # unmeasured: both get warm
            turns.clear()
        landed = _count(folder / "ours.db", "webhook_events"), _count(Path(bare_path), "events")
        for _ in range(rounds):
            ours.append(uvloop.run(_load(ours_port, numbers, connections, seconds)))
            bare.append(uvloop.run(_load(bare_port, numbers, connections, seconds)))
    for turns, path, name, before in (
        (ours, folder / "ours.db", "webhook_events", landed[0]),
        (bare, Path(bare_path), "events", landed[1]),
    ):
        if _count(path, name) - before != sum(len(turn.waits) for turn in turns):
            raise RuntimeError("an answer without its row")
    return ours, bare


def _count(path: Path, name: str) -> int:
    with closing(sqlite3.connect(path)) as database:
        number: int = database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608 - our names
        return number


def row(what: str, turns: Sequence[Turn]) -> tuple[object, ...]:
    """One row of the table: medians over the turns."""
    rates = [turn.rate for turn in turns]
    return (
        what,
        round(statistics.median(rates)),
        f"{min(rates):.0f}-{max(rates):.0f}",
        round(statistics.median(turn.wait(0.5) for turn in turns), 1),
        round(statistics.median(turn.wait(0.99) for turn in turns), 1),
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one turn")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--bare", nargs=2, metavar=("PORT", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        serve_bare(int(arguments.bare[0]), arguments.bare[1])
        return 0
    with tempfile.TemporaryDirectory(prefix="crm-bench-") as folder:
        ours, bare = compare(Path(folder), arguments.rounds, arguments.seconds, arguments.connections)
    rows = [row("crm_pipeline, all on", ours), row("bare handler, commit each", bare)]
    numbers = ("per second", "from-to", "p50 ms", "p99 ms")
    console().print(table(("server", *numbers), rows, numbers=numbers))
    rounds = list(zip(ours, bare, strict=True))
    rates = [one.rate / other.rate for one, other in rounds]
    waits = [one.wait(0.99) / other.wait(0.99) for one, other in rounds]
    print(
        f"of the bare handler: rate {_ratios(rates)}, p99 {_ratios(waits)} (median of {len(rounds)} rounds)"
    )
    return 0


def _ratios(found: Sequence[float]) -> str:
    return f"x{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})"


if __name__ == "__main__":
    sys.exit(main())
