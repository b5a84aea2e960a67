"""Push contacts that changed, every row's result read, against drt's batch mode and the least there is.

    python benchmarks/push.py [--rows 10000] [--rounds 3]

drt takes any answer of 2xx as a success of the whole batch. The floor reads each row's result and
notes each batch; it has no history, and what a crash leaves it does not know.
"""

from __future__ import annotations

import argparse
import math
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from rounds import calls, compare, contend, crm

BATCH = 100


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crm-bench-") as name, crm(Path(name), said.rows) as url:
        folder = Path(name)
        ours, theirs = folder / "ours.db", folder / "theirs.db"
        contend("ours", "first", url, f"sqlite:///{ours}", folder)

        def turn(name: str) -> dict[str, Any]:
            if name == "ours":
                with closing(sqlite3.connect(ours)) as database:
                    database.execute("UPDATE contacts SET notes = coalesce(notes, '') || '!'")
                    database.commit()
            else:
                _mark(theirs, said.rows)
            calls(url)
            told = contend(name, "push", url, f"sqlite:///{ours if name == 'ours' else theirs}", folder)
            if told["rows"] != said.rows:
                raise RuntimeError(f"{name} pushed {told['rows']} of {said.rows} rows")
            return told | {"calls": calls(url)}

        compare(
            f"push of {said.rows} changed", ("ours", "drt_batch", "floor"), "drt_batch", said.rounds, turn
        )
    print(f"fewest calls: {math.ceil(said.rows / BATCH)}, and ours asks once what changed in the CRM")
    return 0


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
