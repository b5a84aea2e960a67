"""How time and memory grow: first loads and polls of ever more contacts.

python benchmarks/growth.py [10000 100000 1000000]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rounds import calls, contend, crm

from crm_pipeline.cli.output import console, table


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sizes", nargs="*", type=int, default=[10_000, 100_000, 1_000_000])
    rows = []
    for size in parser.parse_args().sizes:
        with tempfile.TemporaryDirectory(prefix="crm-bench-") as name, crm(Path(name), size) as url:
            database = f"sqlite:///{name}/ours.db"
            first = contend("ours", "first", url, database, Path(name))
            calls(url)
            poll = contend("ours", "poll", url, database, Path(name))
            polled = (f"{poll['seconds'] * 1000:.0f}", calls(url))
            again = contend("ours", "again", url, database, Path(name))
            each = first["seconds"] / size * 1e6
            figures = (
                size,
                f"{first['seconds']:.1f}",
                f"{each:.0f}",
                round(first["mib"]),
                round(again["mib"]),
            )
            rows.append((*figures, *polled))
    numbers = (
        "contacts",
        "first load s",
        "µs each",
        "peak MiB",
        "everything again: MiB",
        "poll, nothing new: ms",
        "its calls",
    )
    console().print(table(numbers, rows, numbers=numbers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
