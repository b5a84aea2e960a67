"""Supervision: what dies is started again, with a rest that grows, and nothing outlives the block."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from crm_pipeline.cli.processes import usable_port, wait_until
from crm_pipeline.cli.supervisor import Program, Supervisor, Surroundings

STAYS = "import time; print('here', flush=True); time.sleep(600)"
LISTENS = (
    "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"
)
WITH_A_CHILD = (
    "import subprocess, sys, time\n"
    "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(inner.pid, flush=True)\ntime.sleep(600)\n"
)


class Told:
    """What was shown and noted."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, str]] = []
        self.noted: list[tuple[str, str]] = []

    def show(self, name: str, line: str) -> None:
        """Take a line of output."""
        self.shown.append((name, line))

    def note(self, name: str, line: str) -> None:
        """Take a death."""
        self.noted.append((name, line))


def supervisor(folder: Path, told: Told, *programs: Program) -> Supervisor:
    """Supervise programs whose output is kept."""
    return Supervisor(programs, Surroundings(folder, os.environ, show=told.show), told.note)


def keep_until(running: Supervisor, condition: Callable[[], bool], what: str) -> None:
    """Look after them until something is so."""

    def so() -> bool:
        running.look()
        return condition()

    wait_until(so, seconds=20, what=what)


def test_what_dies_is_started_again_and_the_others_stay(tmp_path: Path) -> None:
    """Killed with -9: it is noted, and a second later there is another one. Its neighbour notices nothing."""
    told = Told()
    programs = [Program(name, [sys.executable, "-c", STAYS]) for name in ("one", "two")]
    with supervisor(tmp_path, told, *programs) as running:
        keep_until(running, lambda: len(told.shown) == 2, "starting")
        before = running.pids
        os.kill(before["one"], signal.SIGKILL)
        keep_until(running, lambda: len(told.shown) == 3, "starting again")
        after = running.pids
    assert told.noted == [("one", "ended with code -9; it is started again in 1 s")]
    assert after["two"] == before["two"]
    assert after["one"] != before["one"]
    assert not any(psutil.pid_exists(pid) for pid in after.values())


def test_a_program_that_cannot_live_is_tried_ever_more_rarely(tmp_path: Path) -> None:
    """1 second, then 2: a mistake in the settings fills no log."""
    told = Told()
    began = time.monotonic()
    with supervisor(tmp_path, told, Program("one", [sys.executable, "-c", "raise SystemExit(3)"])) as running:
        keep_until(running, lambda: len(told.noted) == 2, "two deaths")
    assert [line for _, line in told.noted] == [
        "ended with code 3; it is started again in 1 s",
        "ended with code 3; it is started again in 2 s",
    ]
    assert time.monotonic() - began > 1.0


def test_what_it_leaves_behind_goes_with_it(tmp_path: Path) -> None:
    """A code server's runs end with it: nobody could stop them any more."""
    told = Told()
    with supervisor(tmp_path, told, Program("one", [sys.executable, "-c", WITH_A_CHILD])) as running:
        keep_until(running, lambda: bool(told.shown), "starting")
        inner = psutil.Process(int(told.shown[0][1]))
        os.kill(running.pids["one"], signal.SIGKILL)
        keep_until(running, lambda: bool(told.noted), "noticing")
        wait_until(lambda: not _works(inner), seconds=10, what="the inner process's end")


def test_one_that_needs_another_waits_for_it(tmp_path: Path) -> None:
    """It is not started before somebody listens where it will look."""
    told, port = Told(), usable_port(0)
    first = Program("first", [sys.executable, "-c", LISTENS, str(port)])
    second = Program("second", [sys.executable, "-c", STAYS], after=("127.0.0.1", port))
    with supervisor(tmp_path, told, second) as alone:
        alone.look()
        assert alone.pids == {}
    with supervisor(tmp_path, told, first, second) as running:
        keep_until(running, lambda: ("second", "here") in told.shown, "starting")


def _works(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
