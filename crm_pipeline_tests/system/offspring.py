"""``crm-pipeline`` in processes of their own, each forked from one that has imported what a sync needs.

A process is real: it is killed, stopped and waited for by its number, and shares nothing with its
siblings but code. Importing that code anew in each took three quarters of the time of the proofs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from crm_pipeline.cli.main import run

_PRELOADED = (
    "crm_pipeline.cli.failures",
    "crm_pipeline.connectors.rest",
    "crm_pipeline.connectors.walk",
    "crm_pipeline.service",
    "psycopg",
    "rich.table",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    __name__,
)
PATIENCE = 300.0
"""Seconds after which a process is taken to hang."""
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(_PRELOADED))


@dataclass(frozen=True, slots=True)
class Done:
    """How a process ended."""

    code: int
    """Its exit code, or less than zero for the signal that killed it."""
    out: str
    err: str

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        """The steps of ``--json``, by name."""
        return {step["step"]: step for step in json.loads(self.out)["steps"]}


class Offspring:
    """One run of ``crm-pipeline``, beside us; as a context, the block's end waits for its end."""

    def __init__(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Start it in a folder, with these variables and no other."""
        self._said = TemporaryDirectory(prefix="crm-said-")
        self._out, self._err = (Path(self._said.name, name) for name in ("out", "err"))
        self._process = _CONTEXT.Process(
            target=_live,
            args=(tuple(arguments), str(folder), dict(environment), str(self._out), str(self._err)),
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    def ended(self) -> bool:
        """Whether it has."""
        return not self._process.is_alive()

    def send_signal(self, number: int) -> None:
        """Send a signal, where it still lives."""
        with suppress(ProcessLookupError):
            if not self.ended():
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, where it still lives."""
        self.send_signal(signal.SIGKILL)

    def finish(self) -> Done:
        """Wait for its end.

        Raises:
            TimeoutError: it hung, and was killed.
        """
        self._process.join(PATIENCE)
        if not self.ended():
            self.kill()
            raise TimeoutError(f"it hung: {self._err.read_text()}")
        assert self._process.exitcode is not None
        return Done(self._process.exitcode, self._out.read_text(), self._err.read_text())

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for its end; nothing of it is left."""
        self._process.join()
        self._said.cleanup()


def _live(arguments: Sequence[str], folder: str, environment: Mapping[str, str], out: str, err: str) -> None:
    """What such a process does: become as if it had been started by a shell, and run the command."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv = ["crm-pipeline", *arguments]
    for path, number in ((out, 1), (err, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    run(arguments)
