"""How long webhooks wait while a first load fills the same SQLite file, and what they cost that load.

``crm-pipeline serve`` and ``crm-pipeline sync`` run as processes of their own. Webhooks are posted at
moments that are fixed beforehand, whether the earlier ones have been answered or not. Without webhooks
the same load is timed as well, by turns.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from rounds import crm, free_port, process, until_up
from webhooks import REQUEST, SETTINGS

from crm_pipeline.cli.output import console, table
from crm_pipeline.store.engine import open_database
from crm_pipeline.store.migrate import upgrade

_CONNECTION = """
records: {path: records, id: id, modified: updated_at}
listing: {page_size: 1000, modified_since: {param: updated_since, format: iso}}
pagination: {style: cursor, size_param: limit, cursor_param: cursor, cursor_path: next_cursor}
"""


@dataclass(slots=True)
class Turn:
    """What one first load came to."""

    seconds: float = 0.0
    cpu: float = 0.0
    waits: list[float] = field(default_factory=list)
    """Milliseconds, of every webhook."""
    statuses: Counter[int] = field(default_factory=Counter)


async def beside(loading: int, port: int, rate: float) -> Turn:
    """Post so many webhooks a second while a process loads."""
    turn, began = Turn(), time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        ended = asyncio.ensure_future(asyncio.to_thread(os.wait4, loading, 0))
        number = 0
        while not ended.done():
            if not rate:
                await ended
                continue
            tasks.create_task(_post(port, number, turn))
            number += 1
            await asyncio.wait([ended], timeout=max(0.0, began + number / rate - time.perf_counter()))
        turn.seconds = time.perf_counter() - began
    _, failed, used = ended.result()
    if failed:
        raise RuntimeError("the load failed")
    turn.cpu = used.ru_utime + used.ru_stime
    return turn


async def _post(port: int, number: int, turn: Turn) -> None:
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST % number)
    status = await reader.readline()
    turn.waits.append((time.perf_counter() - began) * 1000)
    turn.statuses[int(status.split()[1])] += 1
    writer.close()


def first_load(folder: Path, url: str, rate: float) -> Turn:
    """One turn, on a database of its own."""
    database = folder / "contacts.db"
    engine = open_database(f"sqlite:///{database}")
    upgrade(engine)
    engine.dispose()
    file = folder / "connection.yaml"
    file.write_text(_CONNECTION)
    settings = {
        **SETTINGS,
        "EXTERNAL_CRM_API_URL": url,
        "EXTERNAL_CRM_CONFIG": str(file),
        "DATABASE_URL": f"sqlite:///{database}",
    }
    port = free_port()
    ours = ("-m", "crm_pipeline.cli.main")
    with process(*ours, "serve", "--port", str(port), log=folder / "log", **settings):
        until_up(port)
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path.cwd()), **settings}
        command = (sys.executable, *ours, "sync", "--no-push")
        loading = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        turn = asyncio.run(beside(loading.pid, port, rate))
    with closing(sqlite3.connect(database)) as rows:
        landed = rows.execute("SELECT count(*) FROM webhook_events").fetchone()[0]
    if landed < turn.statuses[200]:
        raise RuntimeError("an answer without its row")
    return turn


def row(turns: Sequence[Turn], rate: float) -> tuple[object, ...]:
    """One row of the table."""
    waits = sorted(wait for turn in turns for wait in turn.waits)
    statuses = sum((turn.statuses for turn in turns), Counter[int]())
    shares = [round(waits[int(len(waits) * share)]) for share in (0.5, 0.95, 0.99)] if waits else [""] * 3
    longest = round(waits[-1]) if waits else ""
    costs = [(turn.seconds, turn.cpu) for turn in turns]
    medians = [f"{statistics.median(each):.1f}" for each in zip(*costs, strict=True)]
    return (f"{rate:g} a second", len(waits), len(waits) - statuses[200], *shares, longest, *medians)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--contacts", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=20.0, help="webhooks a second")
    parser.add_argument("--rounds", type=int, default=3)
    said = parser.parse_args()
    turns: dict[float, list[Turn]] = {0.0: [], said.rate: []}
    with (
        tempfile.TemporaryDirectory(prefix="crm-bench-") as folder,
        crm(Path(folder), said.contacts) as url,
    ):
        for _ in range(said.rounds):
            for rate, found in turns.items():
                found.append(first_load(Path(tempfile.mkdtemp(dir=folder)), url, rate))
    numbers = ("answers", "not 200", "p50 ms", "p95 ms", "p99 ms", "longest ms", "load s", "load cpu s")
    rows = [row(found, rate) for rate, found in turns.items()]
    console().print(table(("webhooks", *numbers), rows, numbers=numbers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
