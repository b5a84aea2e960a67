"""All benchmarks, one after the other, in their short form; each can be run alone, and for longer.

Usage: ``python benchmarks/all.py [sync push growth start webhooks]``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

SHORT = {
    "sync": ("--contacts", "50000", "--rounds", "2"),
    "push": ("--rounds", "3"),
    "growth": ("10000", "100000"),
    "start": ("--rounds", "3"),
    "webhooks": ("--rounds", "3"),
}


def main() -> int:
    """Run them; the first that fails ends it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="*", choices=SHORT)
    for name in parser.parse_args().what or SHORT:
        began = time.monotonic()
        print(f"\n=== {name}", flush=True)
        script = Path(__file__).with_name(f"{name}.py")
        subprocess.run([sys.executable, str(script), *SHORT[name]], check=True)
        print(f"=== {name}: {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
