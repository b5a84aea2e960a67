"""Pictures of the Dagster UI for the docs: the demo is played, and Chromium looks at it.

Needs ``chromium`` on the path. Writes docs/images/*.png; say which to take only some of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

from crm_pipeline.cli.dagster_ui import DagsterUi, Run
from crm_pipeline.cli.processes import interrupt, usable_port, wait_until

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
LARGEST = 200_000
"""Bytes of a picture."""
DAYS = 31
"""As far back as the demo's contacts go."""
_EDIT = "UPDATE contacts SET notes = 'call again' WHERE id IN (SELECT id FROM contacts ORDER BY id LIMIT 40)"
_DATABASE = ROOT / "var" / "demo" / "crm_pipeline.db"
_SETTLED_MS = 20_000
"""Of the page's own clock, which runs as fast as the page allows."""
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_LAUNCH = """
mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename } }
"""


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture."""

    path: str
    width: int
    height: int


SHOTS: Mapping[str, Shot] = {
    "lineage": Shot("/locations/crm_pipeline/asset-groups/crm/lineage", 1400, 700),
    "run": Shot("/runs/{run}", 1400, 760),
    "figures": Shot("/assets/outbound_push?view=overview", 1400, 960),
    "partitions": Shot("/assets/external_contacts?view=partitions&partition={day}", 1400, 860),
    "checks": Shot("/assets/contacts?view=checks&checkDetail=sampled_parity", 1400, 960),
    "automation": Shot("/automation", 1400, 640),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SHOTS, []], help="pictures to take; all when not given")
    names: list[str] = parser.parse_args(arguments).names or list(SHOTS)
    chromium = shutil.which("chromium")
    if chromium is None:
        print("chromium is not on the path", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    port, api_port = usable_port(0), usable_port(0)
    ports = ["--port", str(port), "--api-port", str(api_port)]
    demo = subprocess.Popen(
        [sys.executable, "-m", "crm_pipeline.cli.main", "demo", *ports],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        _await_summary(demo)
        ui = DagsterUi(f"http://127.0.0.1:{port}")
        words = _make_work(ui)
        for name in names:
            _take(chromium, ui.url + SHOTS[name].path.format(**words), SHOTS[name], IMAGES / f"{name}.png")
    finally:
        interrupt(demo)  # type: ignore[arg-type] # its output is text
        demo.wait(60)
    return 0


def _await_summary(demo: subprocess.Popen[str]) -> None:
    for line in demo.stdout or ():
        if line.startswith("Ctrl-C"):
            return
    raise SystemExit("the demo ended before its summary")


def _make_work(ui: DagsterUi) -> dict[str, str]:
    """Run what the demo leaves out: days read again, a sync, a comparison, and a push by itself."""
    today = datetime.now(UTC).date()
    first = today - timedelta(days=DAYS)
    days = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": today}
    for job, tags in (("pull_job", days), ("sync_job", {}), ("reconcile_job", {})):
        before = {run.id for run in ui.runs()}
        _launch(ui, job, {name: str(value) for name, value in tags.items()})
        wait_until(lambda job=job, before=before: _done(ui.runs(), job, before), seconds=180, what=job)  # type: ignore[misc]
    before = {run.id for run in ui.runs()}
    with closing(sqlite3.connect(_DATABASE)) as database, database:
        database.execute(_EDIT)  # as another program would; the sensor has it pushed
    wait_until(lambda: _done(ui.runs(), "push_job", before), seconds=180, what="the push")
    newest = next(run for run in ui.runs() if run.job == "sync_job")
    return {"run": newest.id, "day": (today - timedelta(days=1)).isoformat()}


def _launch(ui: DagsterUi, job: str, tags: Mapping[str, str]) -> None:
    selector = {
        "repositoryLocationName": "crm_pipeline",
        "repositoryName": "__repository__",
        "jobName": job,
    }
    listed = [{"key": key, "value": value} for key, value in tags.items()]
    params: dict[str, Any] = {"selector": selector, "mode": "default", "executionMetadata": {"tags": listed}}
    query = {"query": _LAUNCH, "variables": {"params": params}}
    answer = requests.post(f"{ui.url}/graphql", json=query, timeout=60).json()
    if answer.get("errors") or answer["data"]["launchRun"]["__typename"] != "LaunchRunSuccess":
        raise SystemExit(f"Dagster does not launch {job}: {json.dumps(answer)}")


def _done(runs: Sequence[Run], job: str, before: set[str]) -> bool:
    fresh = [run for run in runs if run.job == job and run.id not in before]
    return bool(fresh) and all(run.status == "SUCCESS" for run in fresh)


def _take(chromium: str, url: str, shot: Shot, target: Path) -> None:
    with tempfile.TemporaryDirectory() as profile:
        size = f"--window-size={shot.width},{shot.height}"
        own = (f"--user-data-dir={profile}", size, f"--virtual-time-budget={_SETTLED_MS}")
        command = [chromium, *_QUIET, *own, f"--screenshot={target}", url]
        subprocess.run(command, check=True, timeout=120, capture_output=True)
    size_in_bytes = target.stat().st_size
    print(f"{target.relative_to(ROOT)}: {size_in_bytes:,} bytes")
    if size_in_bytes > LARGEST:
        raise SystemExit(f"{target.name} is larger than {LARGEST:,} bytes")


if __name__ == "__main__":
    sys.exit(main())
