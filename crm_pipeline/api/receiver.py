"""The receiver: a process of its own that lands webhooks, so that HTTP and SQL share no interpreter.

In one process, each of the two waited for the other's Python: on two cores the API then took
barely more webhooks a second than on one.
"""

from __future__ import annotations

import gc
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from crm_pipeline.api.logs import open_log
from crm_pipeline.api.problems import Problem, passing, problem_of
from crm_pipeline.garbage import COLLECT_AFTER
from crm_pipeline.logs import place_of
from crm_pipeline.service import service_from_settings
from crm_pipeline.settings import Settings
from crm_pipeline.sync.reception import Arrival, Receipt

_STOP_SECONDS = 10.0
ANSWER_SECONDS = 45.0
"""Longer than a database may keep it waiting: past that, the process hangs, and is ended."""


class Receiver:
    """The way to the process; it is started anew when it has ended. For one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        """Start it: it opens the same service as this process, and its own connection to the database."""
        self._settings, self._log = settings, open_log(form=settings.log_format)
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = (sys.executable, "-m", __name__, str(theirs.fileno()))
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        self._pipe = Connection(ours.detach())
        with suppress(OSError):  # it has ended already: whoever needs it first will notice
            self._pipe.send(sys.path)
            self._pipe.send(self._settings)

    def __call__(self, arrivals: list[Arrival]) -> list[Receipt]:
        """Land webhooks, all in one transaction; durable when it returns.

        Raises:
            Problem: as ``problem_of`` has it for what failed; 503 also when the process has ended or
                hangs, and the webhooks may have landed.
        """
        try:
            self._pipe.send(arrivals)
            if not self._pipe.poll(ANSWER_SECONDS):
                raise TimeoutError
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:  # a timeout is one of the latter
            self._process.kill()
            self.close()
            self._start()
            self._log.error("the process that stores webhooks is started anew", error=type(error).__name__)
            raise passing(503, "Webhooks cannot be stored now.") from None
        if isinstance(answer, list):
            return answer
        status, detail, headers = answer
        raise Problem(status, detail, headers=headers)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def close(self) -> None:
        """End it, after the transaction it is in."""
        self._pipe.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def receive(pipe: Connection) -> None:
    """Land what comes through the pipe, until its other end is closed, in whatever way."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the API is told as well, and ends this process last
        signal.signal(number, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        sys.path[:] = pipe.recv()  # first: what the settings name may be where only it leads
        settings: Settings = pipe.recv()
        log = open_log(form=settings.log_format)
        with service_from_settings(settings) as service:
            gc.freeze()
            gc.set_threshold(*COLLECT_AFTER)
            while True:
                arrivals: list[Arrival] = pipe.recv()
                answer: list[Receipt] | tuple[int, str, dict[str, str]]
                try:
                    answer = service.receive(arrivals)
                except Exception as error:  # noqa: BLE001 - told on
                    problem = problem_of(error)
                    answer = problem.status, problem.detail, problem.headers
                    told = {"error": type(error).__name__, "at": place_of(error)}
                    log.error("webhooks cannot be stored", **told)  # noqa: TRY400 - a traceback may quote one
                pipe.send(answer)


if __name__ == "__main__":
    receive(Connection(int(sys.argv[1])))
