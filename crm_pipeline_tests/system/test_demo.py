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
from pathlib import Path
from typing import Any

import psutil
import pytest

from crm_pipeline.cli.http_api import HttpApi
from crm_pipeline.cli.processes import usable_port, wait_until
from crm_pipeline.simulators.generic import CONTACTS_PATH, GenericCrm, create_app
from crm_pipeline.simulators.serve import running

PROJECT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "crm_pipeline.cli.main")
DEMO = (*COMMAND, "demo", "--json")

pytestmark = pytest.mark.timeout(600)  # real Dagster processes; a run costs them seconds


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


def test_dev_polls_by_itself_on_the_settings_in_env(folder: Path) -> None:
    """With SYNC_MODE=polling contacts arrive without a click, the API answers; Ctrl-C ends all processes."""
    crm, listening = GenericCrm.seeded(40), ports()
    with running(create_app(crm)) as crm_url:
        (folder / ".env").write_text(
            "EXTERNAL_CRM_ENABLED=true\nEXTERNAL_CRM_SYNC_MODE=polling\nEXTERNAL_CRM_SYNC_INTERVAL=1\n"
            f"EXTERNAL_CRM_API_URL={crm_url}{CONTACTS_PATH}\nEXTERNAL_CRM_API_KEY={crm.options.api_key}\n"
            "CRM_API_KEY=key-of-the-tests\n"
        )
        clean = {**os.environ, "PYTHONPATH": str(PROJECT)}
        command = [*COMMAND, "dev", *listening]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, env=clean, stdout=log, stderr=log)
        try:
            wait_until(lambda: _contacts(folder) == 40, seconds=200, what="the first poll")
            status = HttpApi(f"http://127.0.0.1:{listening[-1]}", "key-of-the-tests").status()
            assert (status.status, status.document["contacts"]) == (200, 40)
            second = subprocess.run(command, cwd=folder, env=clean, capture_output=True, check=False)
            assert second.returncode == 1
            assert b"in use by another process" in second.stderr
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0, (folder / "log").read_text()
    assert processes_of(folder) == []


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
