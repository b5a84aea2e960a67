"""`serve --workers`: several processes are one API, and one of them may die."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from typing import Any

import psutil
import requests

from crm_pipeline.cli.processes import wait_until
from crm_pipeline_tests.api.served import KEY, SECRET, WEBHOOK
from crm_pipeline_tests.api.test_serve import served

HEADERS = {"X-API-Key": KEY}
BODY = {"phone": "6281234567890", "name": "Budi", "secret": SECRET}


def workers_of(parent: int) -> dict[int, psutil.Process]:
    """The processes that answer, without those that store for them."""
    children = psutil.Process(parent).children()
    return {child.pid: child for child in children if "--fd" in child.cmdline()}


def status(url: str) -> int:
    """Ask on a connection of its own: either of them may take it."""
    return requests.get(f"{url}/api/external/status", headers=HEADERS, timeout=30).status_code


def figures(url: str) -> dict[str, float]:
    """What Prometheus is told."""
    text = requests.get(f"{url}/metrics", headers=HEADERS, timeout=30).text
    return {name: float(value) for name, value in re.findall(r"^(crm_\S+) (\S+)$", text, re.MULTILINE)}


def test_two_processes_are_one_api() -> None:
    """One limit for both; a killed one is replaced, and nobody is turned away meanwhile."""
    with served("--workers", "2", RATE_LIMIT="60") as (parent, url):
        answers = Counter(status(url) for _ in range(30))
        workers = workers_of(parent.pid)
        assert len(workers) == 2
        killed = next(iter(workers))
        os.kill(killed, signal.SIGKILL)
        answers += Counter(status(url) for _ in range(35))
        assert answers == {200: 60, 429: 5}
        wait_until(lambda: len(workers_of(parent.pid).keys() - {killed}) == 2, seconds=20, what="another one")


def test_figures_are_those_of_all_processes() -> None:
    """Whichever of them is asked: requests add up, what the database says is said once."""
    with served("--workers", "2") as (_, url):
        sent: list[Any] = [
            requests.post(f"{url}{WEBHOOK}", json=BODY, headers=HEADERS, timeout=30) for _ in range(20)
        ]
        assert {answer.status_code for answer in sent} == {200}
        found = figures(url)
    counted = sum(
        value for name, value in found.items() if re.match(r"crm_http_requests_total\{.*webhook", name)
    )
    assert counted == 20
    assert sum(value for name, value in found.items() if name.startswith("crm_webhook_events_total")) == 20
    assert found["crm_backlog"] == 1  # one contact said the same twenty times


def test_they_end_with_their_parent() -> None:
    """Killed with -9, it can tell nobody: they notice, and leave the port to whoever comes."""
    with served("--workers", "2") as (parent, url):
        workers = workers_of(parent.pid)
        assert status(url) == 200
        parent.kill()
        wait_until(lambda: not any(map(_works, workers.values())), seconds=20, what="their end")


def _works(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
