"""Serving on a port, in a thread and in the foreground."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
import requests
from starlette.applications import Starlette

from crm_pipeline.simulators.generic import CONTACTS_PATH, GenericCrm, create_app
from crm_pipeline.simulators.serve import run_generic, running

SCRIPT = """
from crm_pipeline.simulators.serve import run_generic
tell = lambda url: print(url, flush=True)
run_generic(contacts=5, seed=3, port=0, api_key="k", faults=["bad_record=5"], on_ready=tell)
tell("stopped")
"""


def test_a_server_is_there_inside_and_gone_after() -> None:
    """The URL answers within the block; afterwards its port is free again."""
    with running(create_app(GenericCrm.seeded(1))) as base:
        assert requests.get(f"{base}/sim/stats", timeout=5).json()["contacts"] == 1
    port = urlsplit(base).port
    with running(create_app(GenericCrm()), port=port or 0) as again:
        assert again == base


def test_a_taken_port_is_an_error() -> None:
    """Nothing is served in silence somewhere else."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"), running(create_app(GenericCrm()), port=port):
            pass


def test_an_application_that_does_not_start_is_an_error() -> None:
    """The caller is told, and need not wait for a timeout."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if app.routes == []:
            raise ValueError("nothing to serve")
        yield

    with pytest.raises(RuntimeError, match="did not start"), running(Starlette(lifespan=lifespan)):
        pass


def test_a_crm_runs_in_the_foreground_until_interrupted() -> None:
    """It says where it answers, has what was asked for, and SIGINT ends it in order."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        base = process.stdout.readline().strip()
        headers = {"Authorization": "Bearer k"}
        page = requests.get(base + CONTACTS_PATH, headers=headers, timeout=5).json()
        assert page["total"] == 5
        assert len(requests.get(f"{base}/sim/broken", timeout=5).json()["broken"]) == 1
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10)[0] == "stopped\n"
    assert process.returncode == 0


@pytest.mark.parametrize(
    "wrong", [{"faults": ["typo"]}, {"rewrite": ["typo"]}, {"pagination": "typo"}, {"envelope": "array"}]
)
def test_a_misspelt_option_is_an_error_before_anything_starts(wrong: dict[str, list[str]]) -> None:
    """Nothing runs with other options than were meant."""
    with pytest.raises(ValueError, match=r"choose from|must be one of|bare array"):
        run_generic(contacts=0, port=0, **wrong)  # type: ignore[arg-type]
