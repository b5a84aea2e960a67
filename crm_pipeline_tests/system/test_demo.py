"""`demo` and `dev` as a stranger starts them: in a folder with a space, twice, as a background job."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from crm_pipeline.cli.dagster_ui import DagsterUi
from crm_pipeline.cli.http_api import HttpApi
from crm_pipeline.cli.processes import usable_port, wait_until
from crm_pipeline.simulators.generic import CONTACTS_PATH, GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline_tests.orchestration.processes import (
    CONNECTION,
    GOING,
    Dev,
    backfill_status,
    runs,
    start_backfill,
)

PROJECT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "crm_pipeline.cli.main")
DEMO = (*COMMAND, "demo", "--json")

pytestmark = pytest.mark.timeout(600)  # real Dagster processes; the backfill daemon alone loops every 30 s


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project folder with a space in its name, and a .env of the user's that must not matter."""
    folder = tmp_path / "my crm"
    folder.mkdir()
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copyfile(PROJECT / name, folder / name)
    (folder / ".env").write_text("EXTERNAL_CRM_ENABLED=false\nDATABASE_URL=sqlite:////nowhere/at/all.db\n")
    return folder


def environment() -> dict[str, str]:
    """Ours, with the code on the path; a user's settings in it must not matter either."""
    return {**os.environ, "PYTHONPATH": str(PROJECT), "EXTERNAL_CRM_TYPE": "zoho", "RATE_LIMIT": "nonsense"}


def ports() -> list[str]:
    """Options for ports that no other test uses: those by default may be probed by two at once."""
    return ["--port", str(usable_port(0)), "--api-port", str(usable_port(0))]


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def assert_shown(stdout: str) -> None:
    """Every check held, and each sync did what the demo says it does."""
    document: dict[str, Any] = json.loads(stdout)
    assert document["held"] is True
    second = {step["step"]: step for step in document["steps"] if step["sync"] == "second"}
    assert (second["apply"]["created"], second["apply"]["updated"]) == (3, 12)
    assert (second["push"]["created"], second["push"]["updated"]) == (2, 8)
    told = {step["step"]: step for step in document["steps"] if step["sync"] == "webhooks"}
    assert (told["receive"]["seen"], told["receive"]["rejected"]) == (4, 1)
    assert (told["apply"]["created"], told["apply"]["updated"]) == (1, 1)


def test_once_leaves_nothing_behind_and_the_same_again_stays_up(folder: Path) -> None:
    """Both directions are shown, and again on top of the first: as a background job, until SIGTERM.

    While it is up, UI and API answer and another demo is refused; afterwards no process is left.
    """
    demo = [*DEMO, *ports(), "--contacts", "150"]
    done = subprocess.run(
        [*demo, "--once"], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert_shown(done.stdout)
    assert processes_of(folder) == []
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does with background jobs
    try:
        process = subprocess.Popen(
            demo, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        said: list[str] = []
        while not said or not said[-1].startswith("Ctrl-C"):
            said.append(process.stderr.readline())
            assert said[-1], said
        urls = [line.split()[2] for line in said if line.startswith(("Dagster UI", "HTTP API"))]
        (key,) = [line.split("X-API-Key: ")[1].rstrip("')\n") for line in said if "X-API-Key" in line]
        assert len(urls) == 2
        for url in urls:
            asked = urllib.request.Request(url, headers={"X-API-Key": key})  # noqa: S310 - loopback
            with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
                assert answer.status == 200
        refused = subprocess.run(
            [*DEMO, "--once"], cwd=folder, env=environment(), capture_output=True, text=True, check=False
        )
        assert refused.returncode == 1
        assert "demo is in use by another process" in refused.stderr
        assert processes_of(folder)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert_shown(process.stdout.read())
    wait_until(lambda: processes_of(folder) == [], seconds=10, what="the end of all processes")


def test_dev_polls_by_itself_and_thirty_days_are_one_run(folder: Path) -> None:
    """With SYNC_MODE=polling contacts arrive without a click, each minute; the API answers.

    A backfill over 30 days is one run for each asset. A second one is refused; Ctrl-C ends all processes.
    """
    crm = GenericCrm.seeded(90, days=45)
    _, port, _, api_port = listening = ports()
    days = [(datetime.now(UTC) - timedelta(days=1 + back)).strftime("%Y-%m-%d") for back in range(30)]
    of_those_days = sum(record["updated_at"][:10] in days for record in crm.records.values())
    with running(create_app(crm)) as crm_url:
        (folder / "crm.yaml").write_text(CONNECTION)
        (folder / ".env").write_text(
            "EXTERNAL_CRM_ENABLED=true\nEXTERNAL_CRM_SYNC_MODE=polling\nEXTERNAL_CRM_SYNC_INTERVAL=1\n"
            f"EXTERNAL_CRM_API_URL={crm_url}{CONTACTS_PATH}\nEXTERNAL_CRM_API_KEY={crm.options.api_key}\n"
            "EXTERNAL_CRM_CONFIG=crm.yaml\nEXTERNAL_CRM_PUSH=auto\nCRM_API_KEY=key-of-the-tests\n"
        )
        clean = {**os.environ, "PYTHONPATH": str(PROJECT)}
        command = [*COMMAND, "dev", *listening]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, env=clean, stdout=log, stderr=log)
        dev = Dev(crm, f"http://127.0.0.1:{port}", folder / "var" / "dagster")
        try:
            wait_until(DagsterUi(dev.url).loaded, seconds=200, what="loading our code", every=0.5)
            backfill = start_backfill(dev, ["external_contacts", "contacts"], days)
            second = subprocess.run(command, cwd=folder, env=clean, capture_output=True, check=False)
            assert second.returncode == 1
            assert b"in use by another process" in second.stderr
            wait_until(lambda: _contacts(folder) == 90, seconds=200, what="the first poll")
            status = HttpApi(f"http://127.0.0.1:{api_port}", "key-of-the-tests").status()
            assert (status.status, status.document["contacts"]) == (200, 90)
            wait_until(
                lambda: backfill_status(dev, backfill) not in GOING,
                seconds=240,
                what="the backfill",
                every=1.0,
            )
            assert backfill_status(dev, backfill) == "COMPLETED_SUCCESS"
            wait_until(lambda: len(_polls(dev)) > 1, seconds=150, what="two polls", every=1.0)
            polls = _polls(dev)
            made = [run for run in runs(dev) if run["tags"].get("dagster/backfill") == backfill]
            figures = {run.id: run.figures for run in DagsterUi(dev.url).runs()}
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0, (folder / "log").read_text()
    assert processes_of(folder) == []
    seen = {asset: numbers["seen"] for run in made for asset, numbers in figures[run["runId"]].items()}
    assert len(made) == 2
    assert seen["external_contacts"] == of_those_days
    assert set(seen) == {"external_contacts", "contacts"}
    assert {run["jobName"] for run in polls} == {"sync_job"}
    gaps = [later["creationTime"] - earlier["creationTime"] for earlier, later in pairwise(polls)]
    assert all(abs(gap - 60) < 5 for gap in gaps), gaps


def _polls(dev: Dev) -> list[dict[str, Any]]:
    """Runs that the schedule asked for, oldest first."""
    return [
        run for run in reversed(runs(dev)) if run["tags"].get("dagster/schedule_name") == "polling_schedule"
    ]


def _contacts(folder: Path) -> int:
    """How many contacts there are, before the database exists and after."""
    path = folder / "var" / "crm_pipeline.db"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path, timeout=30)) as database:
        try:
            return int(database.execute("SELECT count(*) FROM contacts").fetchone()[0])
        except sqlite3.OperationalError:  # not migrated yet
            return 0
