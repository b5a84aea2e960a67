"""Child processes: stopped with all they started, however the parent is told to end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from crm_pipeline.cli.options import CommandError
from crm_pipeline.cli.processes import child, stoppable, usable_port, wait_until

# A parent with a child of its own; both end on SIGINT as Python programs do.
PARENT = (
    "import subprocess, sys, time\n"
    "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "try:\n    print(inner.pid, flush=True)\n    time.sleep(600)\n"
    "except KeyboardInterrupt:\n    inner.send_signal(2)\n    inner.wait()\n"
    "    print('in order', flush=True)\n"
)


def pid_in(log: Path) -> int:
    """Wait for the first line of a log: the inner process's id."""
    wait_until(lambda: log.is_file() and "\n" in log.read_text(), seconds=20, what="starting")
    return int(log.read_text().splitlines()[0])


def test_a_child_is_stopped_in_order(tmp_path: Path) -> None:
    """At the end of the block the child has been asked to end, and it and its own children are gone."""
    log = tmp_path / "log"
    with child([sys.executable, "-c", PARENT], folder=tmp_path, environment=os.environ, log=log) as process:
        inner = pid_in(log)
        assert psutil.pid_exists(inner)
    assert log.read_text().endswith("in order\n")
    assert process.returncode == 0
    assert not psutil.pid_exists(inner)


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    """What ignores SIGINT is killed after a while, with its children."""
    log = tmp_path / "log"
    deaf = PARENT.replace("except KeyboardInterrupt", "except ZeroDivisionError")
    deaf = f"import signal; signal.signal(2, signal.SIG_IGN)\n{deaf}"
    command = [sys.executable, "-c", deaf]
    with child(command, folder=tmp_path, environment=os.environ, log=log, patience=0.3) as process:
        inner = pid_in(log)
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: not _runs(inner), seconds=10, what="the inner process's end")


def _runs(pid: int) -> bool:
    """Whether a process does anything; an orphan that ended stays as a zombie where nobody reaps."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_to_end_is_like_ctrl_c(number: signal.Signals) -> None:
    """``kill`` and a closed terminal end the block as Ctrl-C does, and handlers are as before afterwards."""
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stoppable():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_ctrl_c_works_in_a_background_job() -> None:
    """A shell starts background jobs with SIGINT ignored; the block hears it all the same."""
    code = (
        "import threading\nfrom crm_pipeline.cli.processes import stoppable\n"
        "try:\n    with stoppable():\n        print('ready', flush=True)\n"
        "        threading.Event().wait(60)\n"
        "except KeyboardInterrupt:\n    print('heard')\n"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "heard\n"


def test_a_condition_that_does_not_come_true_is_an_error() -> None:
    """It says what took too long."""
    with pytest.raises(CommandError, match="baking took more than 0 seconds"):
        wait_until(lambda: False, seconds=0.0, what="baking")


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    """The wanted port where it is free, another where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert usable_port(port) != port
    assert usable_port(port) == port
