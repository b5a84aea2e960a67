"""Prove that a push by jobs of Salesforce's Bulk API may be killed at any moment, and print a table.

In each round every contact is edited, a real `crm-pipeline push` is killed with SIGKILL after a
random time, and pushes follow until nothing is open. No edit may be written twice, and none lost.

    python tools/prove_jobs.py [--contacts 4000] [--rounds 8] [--seed 5]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from crm_pipeline.simulators.serve import running
from crm_pipeline.simulators.vendor import VendorCrm, VendorOptions
from crm_pipeline.simulators.vendors import SIMULATIONS

WIDE = 10_000_000
PATIENCE = 120.0
"""Seconds until a round has to be at its end."""
CLI = (sys.executable, "-m", "crm_pipeline.cli.main")


class Org(VendorCrm):
    """An org that counts how often each edit is written."""

    def __init__(self, *given: Any, **options: Any) -> None:
        """Nothing has been written yet."""
        self.edits: Counter[tuple[str, str]] = Counter()
        super().__init__(*given, **options)

    def edit(self, record_id: str, /, **fields: Any) -> dict[str, Any]:
        """Count, and change."""
        self.edits[record_id, str(fields.get("Description"))] += 1
        return super().edit(record_id, **fields)


class Proof:
    """One org, one database, many kills."""

    def __init__(self, org: Org, url: str, folder: Path) -> None:
        self._org, self._folder, self._file = org, folder, folder / "crm.db"
        self._environment = {
            **os.environ,
            "EXTERNAL_CRM_ENABLED": "true",
            "EXTERNAL_CRM_TYPE": "salesforce",
            "EXTERNAL_CRM_API_URL": url,
            "EXTERNAL_CRM_API_KEY": "sim-key",
            "DATABASE_URL": f"sqlite:///{self._file}",
        }

    def pull(self) -> bool:
        """Read everything for the first time."""
        return self._run("sync") == 0

    def round(self, number: int, seconds: float) -> bool:
        """Edit, push, kill, push to the end; whether all is as it must be."""
        self._sql("UPDATE contacts SET notes = ? || id", f"round {number}, ")
        self._org.edits.clear()
        jobs = self._org.calls["job_open"]
        with self._started("push") as pushing:
            try:
                pushing.wait(seconds)
                how = "ended before"
            except subprocess.TimeoutExpired:
                pushing.kill()
                how = "killed after"
        until = time.monotonic() + PATIENCE
        while self._run("push") != 0 or self._sql("SELECT 1 FROM intents WHERE state = 'open'"):
            if time.monotonic() > until:
                return False
        twice = sum(times > 1 for times in self._org.edits.values())
        pairs = self._sql("SELECT external_id, notes FROM contacts JOIN links ON contact_id = id")
        differ = sum(
            self._org.fields(self._org.row(str(key))).get("Description") != notes for key, notes in pairs
        )
        written, jobs = self._org.edits.total(), self._org.calls["job_open"] - jobs
        print(f"{number:>5}  {how} {seconds:5.2f} s{jobs:>6}{written:>9}{twice:>7}{differ:>8}", flush=True)
        return not twice and not differ

    def _started(self, command: str) -> subprocess.Popen[bytes]:
        nowhere = subprocess.DEVNULL
        return subprocess.Popen(
            (*CLI, command), cwd=self._folder, env=self._environment, stdout=nowhere, stderr=nowhere
        )

    def _run(self, command: str) -> int:
        with self._started(command) as process:
            return process.wait(PATIENCE)

    def _sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Another program's statement."""
        with contextlib.closing(sqlite3.connect(self._file, timeout=PATIENCE)) as database, database:
            return database.execute(statement, values).fetchall()


def main() -> int:
    """Run the rounds; 0 when no edit was doubled or lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contacts", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=5)
    asked = parser.parse_args()
    simulation, chance = SIMULATIONS["salesforce"], random.Random(asked.seed)  # noqa: S311 - chances, no secrets
    org = Org.seeded(simulation.vendor, asked.contacts, options=VendorOptions(burst=WIDE, daily=WIDE))
    print("round  push                 jobs  written  twice  differ")
    with tempfile.TemporaryDirectory() as folder, running(simulation.app(org)) as url:
        proof = Proof(org, url, Path(folder))
        right = [proof.pull()]
        right += [proof.round(number, 0.4 + 4 * chance.random()) for number in range(asked.rounds)]
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
