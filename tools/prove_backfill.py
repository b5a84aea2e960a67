"""The full-size proof of backfills: sixty days in one run and in six, and one that is killed twice.

Real Dagster processes around a CRM on a socket (some minutes); the worker of the killed one gets
SIGKILL while it reads, and Dagster repeats its run. Exit code 1 when a figure is wrong.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from crm_pipeline.cli.dagster_ui import DagsterUi
from crm_pipeline.cli.output import console, table
from crm_pipeline.cli.processes import wait_until
from crm_pipeline.simulators.faults import Faults
from crm_pipeline.simulators.generic import CrmOptions, GenericCrm
from crm_pipeline_tests.orchestration.processes import (
    GOING,
    MARKERS,
    Dev,
    backfill_status,
    on_dagster,
    runs,
    start_backfill,
)

DAYS = 60
CONTACTS = 6_000
LONG = 900.0


@dataclass
class Played:
    """What one backfill took."""

    name: str
    runs: int = 0
    seen: int = 0
    landed: int = 0
    expected: int = 0
    calls: int = 0
    kills: int = 0
    seconds: float = 0.0
    right: bool = False


def play(name: str, folder: Path, *, kills: int = 0, **settings: str) -> Played:
    """Backfill the days before today."""
    crm = GenericCrm.seeded(
        CONTACTS, days=DAYS + 20, options=CrmOptions(api_key=MARKERS["EXTERNAL_CRM_API_KEY"])
    )
    today = datetime.now(UTC)
    days = [(today - timedelta(days=back)).strftime("%Y-%m-%d") for back in range(DAYS, 0, -1)]
    of_those_days = sum(record["updated_at"][:10] in days for record in crm.records.values())
    crm.faults = Faults(latency=0.3 if kills else 0.0)
    folder.mkdir()
    with on_dagster(folder, crm, EXTERNAL_CRM_PUSH="off", **settings) as dev:
        played, began = Played(name, expected=of_those_days), time.monotonic()
        backfill = start_backfill(dev, ["external_contacts"], days)
        for _ in range(kills):
            _kill_a_reader(dev, crm)
            played.kills += 1
        wait_until(lambda: backfill_status(dev, backfill) not in GOING, seconds=LONG, what="the backfill")
        played.seconds = time.monotonic() - began
        mine = {run["runId"] for run in runs(dev) if run["tags"].get("dagster/backfill") == backfill}
        figures = [run.figures for run in DagsterUi(dev.url).runs() if run.id in mine]
        done = [each["external_contacts"] for each in figures if "external_contacts" in each]
        played.runs, played.calls = len(mine), crm.requests
        played.seen = int(sum(each["seen"] for each in done))
        complete = backfill_status(dev, backfill) == "COMPLETED_SUCCESS"
    played.landed = _landed(folder)
    went_on = played.seen < of_those_days if kills else played.seen == of_those_days
    played.right = complete and went_on and played.landed == of_those_days
    return played


def _landed(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "my crm" / "var" / "crm_pipeline.db")) as database:
        (number,) = database.execute("SELECT count(*) FROM external_records").fetchone()
    return int(number)


def _kill_a_reader(dev: Dev, crm: GenericCrm) -> None:
    """SIGKILL the run's worker when some more pages were read."""
    before = crm.requests
    wait_until(lambda: crm.requests >= before + 5, seconds=LONG, what="five pages")
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = process.info["cmdline"] or []
        ours = (process.info["environ"] or {}).get("DAGSTER_HOME") == str(dev.home)
        if ours and any("spawn_main" in word for word in words):  # what the code server runs a run in
            os.kill(process.pid, signal.SIGKILL)


def main() -> int:
    """Play all three."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        played = [
            play("one run", folder / "one"),
            play("ten days a run", folder / "ten", EXTERNAL_CRM_BACKFILL_DAYS="10"),
            play("one run, killed twice", folder / "killed", kills=2),
        ]
    columns = ("backfill of 60 days", "runs", "seen", "landed", "of", "calls", "kills", "seconds", "right")
    rows = [
        (
            *(each.name, each.runs, each.seen, each.landed, each.expected, each.calls, each.kills),
            *(f"{each.seconds:.0f}", each.right),
        )
        for each in played
    ]
    console().print(table(columns, rows, numbers=columns[1:-1]))
    return 0 if all(each.right for each in played) else 1


if __name__ == "__main__":
    sys.exit(main())
