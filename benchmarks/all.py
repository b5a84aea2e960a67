"""All benchmarks, one after the other, in their short form; each can be run alone, and for longer.

Usage: ``python benchmarks/all.py [sync push growth start webhooks]``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SHORT = {
    "sync": ("--contacts", "50000", "--rounds", "2"),
    "push": ("--rounds", "3"),
    "growth": ("10000", "100000"),
    "start": ("--rounds", "3"),
    "webhooks": ("--rounds", "3"),
}


def asked(arguments: Sequence[str] | None = None) -> list[str]:
    """Which are to run: those that are named, or all; ``choices`` of argparse would refuse none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="*", metavar="|".join(SHORT))
    named: list[str] = parser.parse_args(arguments).what
    if unknown := [name for name in named if name not in SHORT]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(SHORT)}")
    return named or list(SHORT)


def main() -> int:
    """Run them; the first that fails ends it."""
    for name in asked():
        began = time.monotonic()
        print(f"\n=== {name}", flush=True)
        script = Path(__file__).with_name(f"{name}.py")
        subprocess.run([sys.executable, str(script), *SHORT[name]], check=True)
        print(f"=== {name}: {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
