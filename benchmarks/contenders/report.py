"""What a contender is asked, and what it tells. Imports nothing that is not Python's own."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path


def said(*steps: str) -> argparse.Namespace:
    """The arguments: a step, and where things are."""
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=steps)
    parser.add_argument("--url", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--folder", required=True)
    return parser.parse_args()


def tell(began: float, cpu: float, **counts: int) -> None:
    """Print seconds, processor seconds, the largest memory so far in MiB, and counts."""
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps({"seconds": seconds, "cpu": used, "mib": peak, **counts}))
