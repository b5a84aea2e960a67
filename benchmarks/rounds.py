"""Rounds: contenders take turns, each in a process of its own, and are compared round by round."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import requests

from crm_pipeline.cli.output import console, table
from crm_pipeline.cli.processes import usable_port, wait_until
from crm_pipeline_tests.databases import Databases, PostgresDatabases, SqliteDatabases
from crm_pipeline_tests.postgres import PostgresServer

HERE = Path(__file__).parent
PEERS = Path("var/bench/peers/bin/python").absolute()
"""Has dlt and drt, apart from what the project is made of; ``make bench`` puts it there."""
_PATIENCE = 600.0
_QUIET = {"RUNTIME__DLTHUB_TELEMETRY": "false", "PYTHONWARNINGS": "ignore"}
"""For the peers: they report to nobody."""


@contextmanager
def process(*command: str, log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that runs as long as the block does."""
    environment = {"PATH": os.defpath, "PYTHONPATH": str(HERE.parent), **variables}
    with log.open("ab") as out:
        started = subprocess.Popen([sys.executable, *command], env=environment, stdout=out, stderr=out)
    try:
        yield started
    finally:
        started.terminate()
        started.wait()


@contextmanager
def crm(folder: Path, contacts: int, *, page: int = 1000, delay_ms: float = 0.0) -> Iterator[str]:
    """The CRM that is measured against; the URL of its contacts."""
    port = free_port()
    said = ("--port", port, "--contacts", contacts, "--page", page, "--delay-ms", delay_ms)
    with process(str(HERE / "crm.py"), *map(str, said), log=folder / "crm.log"):
        until_up(port)
        yield f"http://127.0.0.1:{port}/contacts"


@contextmanager
def databases(folder: Path, kinds: Sequence[str]) -> Iterator[dict[str, Databases]]:
    """Where databases of these kinds are made; PostgreSQL runs as long as the block does, and durably."""
    found: dict[str, Databases] = {"sqlite": SqliteDatabases(folder)}
    with ExitStack() as stack:
        if "postgresql" in kinds:
            server = PostgresServer(durable=True)
            stack.callback(server.close)
            found["postgresql"] = PostgresDatabases(server.socket_folder, "bench")
        yield found


def calls(url: str) -> int:
    """How many calls the CRM has answered since this was asked."""
    answer = requests.get(url.replace("/contacts", "/bench/calls"), timeout=30)
    return sum(answer.json().values())


def free_port() -> int:
    """A port nobody listens on."""
    return usable_port(0)


def until_up(port: int) -> None:
    """Wait until somebody answers HTTP at a port.

    Raises:
        CommandError: nobody does.
    """
    wait_until(lambda: _answers(port), seconds=_PATIENCE, what=f"an answer at port {port}", every=0.05)


def _answers(port: int) -> bool:
    try:
        requests.get(f"http://127.0.0.1:{port}/bench/calls", timeout=5)
    except (requests.ConnectionError, requests.Timeout):
        return False
    return True


def contend(name: str, step: str, url: str, database: str, folder: Path) -> dict[str, Any]:
    """Let a contender do a step; what it tells of it.

    Raises:
        RuntimeError: it failed; the text is what it said.
    """
    theirs = name in {"dlt_merge", "drt_batch"}
    command = [str(PEERS) if theirs else sys.executable, str(HERE / "contenders" / f"{name}.py"), step]
    command += ["--url", url, "--database", database, "--folder", str(folder)]
    environment = {"PATH": os.defpath, "HOME": str(folder)}
    environment |= _QUIET if theirs else {"PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} {step}: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def compare(
    title: str,
    contenders: Sequence[str],
    against: str,
    rounds: int,
    turn: Callable[[str], dict[str, Any]],
) -> None:
    """Let contenders take turns, and print what each cost and how often it is as fast as ``against``."""
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in contenders if number % 2 == 0 else reversed(contenders):
            told[name].append(turn(name))
    rows = []
    for name, turns in told.items():
        ratios = [
            other["seconds"] / each["seconds"] for other, each in zip(told[against], turns, strict=True)
        ]
        rows.append(
            (
                name,
                turns[0]["rows"],
                _median(turns, "seconds"),
                _median(turns, "cpu"),
                round(max(each["mib"] for each in turns)),
                turns[0].get("calls", ""),
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
            )
        )
    numbers = ("rows", "seconds", "cpu s", "MiB", "calls")
    console().print(f"{title} ({rounds} rounds)")
    console().print(table(("contender", *numbers, f"times as fast as {against}"), rows, numbers=numbers))


def _median(turns: Sequence[dict[str, Any]], name: str) -> str:
    return f"{statistics.median(each[name] for each in turns):.2f}"
