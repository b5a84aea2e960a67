"""Whole syncs with each vendor's simulated account: the fewest calls, and both sides equal at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "api_calls.py"
CONTACTS = 2_300
"""So that pages, cursors and page tokens are crossed, and a thousand can be pushed twice."""


@pytest.mark.parametrize("vendor, measured", [("hubspot", 3), ("salesforce", 4), ("zoho", 3)])
def test_pulls_and_pushes_take_the_fewest_calls(vendor: str, measured: int) -> None:
    """First pull, poll, push with bad rows, throttling, a token's end, deletes, merges: nothing differs."""
    command = (sys.executable, str(TOOL), "--contacts", str(CONTACTS), vendor)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if " 1.00 " in line]
    assert len(rows) == measured, done.stdout
