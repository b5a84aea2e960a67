"""`simulate`: a CRM as a program, started and stopped."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import requests

from crm_pipeline_tests.cli.conftest import Cli

COMMAND = (sys.executable, "-m", "crm_pipeline.cli.main", "simulate", "generic")


def test_it_serves_until_it_is_interrupted() -> None:
    """It says where it answers, answers as asked for, and ends with 0 on Ctrl-C."""
    options = ("--json", "--port", "0", "--contacts", "12", "--page-size", "5", "--fault", "bad_record=4")
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        told = json.loads("".join(lines))
        answer = requests.get(told["api_url"], headers={"Authorization": "Bearer sim-key"}, timeout=10)
        control = told["api_url"].removesuffix("/api/contacts") + "/sim/stats"
        stats = requests.get(control, timeout=10).json()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    assert len(answer.json()["records"]) == 5
    assert (stats["contacts"], stats["broken"]) == (12, 3)


def test_a_wrong_fault_lists_the_right_ones(cli: Cli) -> None:
    """A spelling mistake is wrong usage, and the answer helps."""
    answer = cli("simulate", "generic", "--fault", "rate_limits=3")
    assert answer.code == 2
    assert "rate_limit=K" in answer.err


def test_a_busy_port_is_one_line(cli: Cli) -> None:
    """Somebody else listens: exit code 1 with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = cli("simulate", "generic", "--port", str(taken.getsockname()[1]))
    assert (answer.code, answer.out) == (1, "")
    assert "in use" in answer.err
