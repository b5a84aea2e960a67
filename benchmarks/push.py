"""Push contacts that changed, every row's result read, against drt's batch mode and the least there is.

    python benchmarks/push.py [--rows 10000] [--rounds 3] [--databases sqlite postgresql] [at-once latency]

``at-once`` is a CRM that answers at once, ``latency`` one that takes 50 ms for each answer.

drt takes any answer of 2xx as a success of the whole batch. The floor reads each row's result and
notes each batch; it has no history, and what a crash leaves it does not know. Both use SQLite.
"""

from __future__ import annotations

import argparse
import math
import sqlite3
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from rounds import calls, compare, contend, crm, databases

from crm_pipeline.store.engine import open_database, writing

BATCH = 100
_CONTENDERS = ("ours", "drt_batch", "floor")
_DELAYS_MS = {"at-once": 0.0, "latency": 50.0}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="*", default=list(_DELAYS_MS))
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--databases", nargs="*", default=["sqlite", "postgresql"])
    said = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crm-bench-")))
        kinds = stack.enter_context(databases(folder, said.databases))
        for kind in said.databases:
            for what in said.what:
                with (
                    crm(folder, said.rows, delay_ms=_DELAYS_MS[what]) as url,
                    kinds[kind].fresh(migrated=False) as database,
                ):
                    title = f"{kind}, {_DELAYS_MS[what]:.0f} ms an answer: push of {said.rows} changed"
                    compare(
                        title, _CONTENDERS, "drt_batch", said.rounds, _Turn(url, database, folder, said.rows)
                    )
    print(f"fewest calls: {math.ceil(said.rows / BATCH)}, and ours asks once what changed in the CRM")
    return 0


class _Turn:
    """One contender's turn with a CRM."""

    def __init__(self, url: str, database: str, folder: Path, rows: int) -> None:
        """Let our database hold what the CRM does."""
        self._url, self._database, self._folder, self._rows = url, database, folder, rows
        contend("ours", "first", url, database, folder)

    def __call__(self, name: str) -> dict[str, Any]:
        """Change every row, and let the contender push it."""
        theirs = self._folder / "theirs.db"
        if name == "ours":
            self._change()
        else:
            _mark(theirs, self._rows)
        calls(self._url)
        database = self._database if name == "ours" else f"sqlite:///{theirs}"
        told = contend(name, "push", self._url, database, self._folder)
        if told["rows"] != self._rows:
            raise RuntimeError(f"{name} pushed {told['rows']} of {self._rows} rows")
        return told | {"calls": calls(self._url)}

    def _change(self) -> None:
        engine = open_database(self._database)
        with writing(engine) as tx:
            tx.exec_driver_sql("UPDATE contacts SET notes = coalesce(notes, '') || '!'")
        engine.dispose()


def _mark(path: Path, rows: int) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("DROP TABLE IF EXISTS changed")
        database.execute("CREATE TABLE changed (id TEXT PRIMARY KEY, notes TEXT)")
        some = ((str(100_001 + number), f"note {number}") for number in range(rows))
        database.executemany("INSERT INTO changed VALUES (?, ?)", some)
        database.commit()


if __name__ == "__main__":
    sys.exit(main())
