"""The receiver: a process of its own that lands webhooks, so that HTTP and SQL share no interpreter.

In one process, each of the two waited for the other's Python: on two cores the API then took
barely more webhooks a second than on one.
"""

from __future__ import annotations

import asyncio
import gc
import pickle
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, TypeAlias, cast

from crm_pipeline.api.landing import Queue, Waiting, together, turn
from crm_pipeline.api.logs import Log
from crm_pipeline.api.problems import Problem, passing, problem_of
from crm_pipeline.api.spawned import Spawned, spawn
from crm_pipeline.garbage import COLLECT_AFTER
from crm_pipeline.logs import place_of
from crm_pipeline.service import ExternalCrmService, service_from_settings
from crm_pipeline.settings import Settings
from crm_pipeline.sync.reception import Arrival, Receipt

_STOP_SECONDS = 10.0
ANSWER_SECONDS = 45.0
"""Longer than a database may keep it waiting: past that, the process hangs, and is ended."""
_LENGTH = struct.Struct("!Q")
_CHUNK = 1024 * 1024

_Refusal: TypeAlias = tuple[int, str, dict[str, str]]
"""What a ``Problem`` is made of."""


def framed(message: Any) -> bytes:
    """A message as it is sent: its length, then itself."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


class Messages:
    """Finds messages in a stream of bytes."""

    def __init__(self) -> None:
        """None has come."""
        self._held = bytearray()

    def read(self, data: bytes) -> Iterator[Any]:
        """The messages that have come whole with these bytes."""
        self._held += data
        while len(self._held) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._held)[0]
            if len(self._held) < end:
                return
            body = bytes(self._held[_LENGTH.size : end])
            del self._held[:end]
            yield pickle.loads(body)  # noqa: S301 - from a process of ours


class Receiver(Queue[Arrival, Receipt]):
    """The way to the process; it is started anew when it has ended and is needed.

    What comes is handed on at once, and the process lands together whatever has come meanwhile.
    The event loop does it by itself: a thread waited for its turn of the interpreter several
    times for each group, while nothing was being stored.
    """

    def __init__(self, settings: Settings, first: Spawned | None = None) -> None:
        """Let it open the same service as this process, and its own connection to the database.

        ``first``: the process to begin with, where one has been spawned already.
        """
        super().__init__()
        self._settings, self._log = settings, Log(form=settings.log_format)
        self._new: list[Waiting[Arrival, Receipt]] = []
        self._sent: deque[Waiting[Arrival, Receipt]] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._pipe: _Pipe | None = None
        self._closed = False
        self._start(first or spawn())

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait until it can land webhooks: whoever comes earlier has to wait for it. Before the loop runs."""
        self._socket.settimeout(ANSWER_SECONDS)
        with suppress(OSError):  # it has ended, or hangs: that is seen to when it is needed
            self._socket.recv(_CHUNK)

    def close(self) -> None:
        """End it, after the transactions that are under way."""
        self._closed = True
        with suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_WR)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._pipe is not None:
            with suppress(RuntimeError):  # the loop has ended, and closed it
                self._pipe.close()
        self._socket.close()

    def _start(self, spawned: Spawned) -> None:
        self._process, self._socket = spawned
        self._running = True
        with suppress(OSError):  # it has ended already: whoever needs it first will notice
            self._socket.sendall(framed((sys.path, pickle.dumps(self._settings))))

    # In the event loop.

    def _add(self, waiting: Waiting[Arrival, Receipt]) -> None:
        self._new.append(waiting)
        if len(self._new) == 1:  # whoever comes in this turn of the loop goes along
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        new, self._new = self._new, []
        self._sent += new
        if not self._running:
            try:
                self._start(spawn())
            except OSError:  # there is no room for a process
                self._lost()
                return
        if self._pipe is None:
            self._pipe = _Pipe(self._socket, self._answered, self._lost)
        self._pipe.write(framed([waiting.items for waiting in new]))
        self._watch()

    def _answered(self, answer: list[list[Receipt] | _Refusal]) -> None:
        self._tell(
            [self._sent.popleft() for _ in answer],
            [each if isinstance(each, list) else _problem(*each) for each in answer],
        )
        self._watch(anew=True)

    def _watch(self, *, anew: bool = False) -> None:
        """Be patient with it while somebody waits, but not for ever."""
        if self._alarm is not None and (anew or not self._sent):
            self._alarm.cancel()
            self._alarm = None
        if self._alarm is None and self._sent:
            self._alarm = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._process.kill)

    def _lost(self) -> None:
        """It has ended, or was ended. What it was given may have landed."""
        if self._closed:
            return
        self._process.kill()
        self._process.wait()
        self._socket.close()
        self._running, self._pipe = False, None
        lost = list(self._sent)
        self._sent.clear()
        self._watch()
        self._log.error("the process that stores webhooks is started anew", waiting=len(lost))
        self._tell(lost, [passing(503, "Webhooks cannot be stored now.")] * len(lost))


class _Pipe(asyncio.Protocol):
    """Our end of the stream to a process."""

    def __init__(self, own: socket.socket, answered: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._answered, self._lost = answered, lost
        self._messages = Messages()
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        loop = asyncio.get_running_loop()
        self._opening = loop.create_task(loop.create_unix_connection(lambda: self, sock=own))

    def write(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._opening.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"".join(self._early))

    def data_received(self, data: bytes) -> None:
        for answer in self._messages.read(data):
            self._answered(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._lost()


def _problem(status: int, detail: str, headers: dict[str, str]) -> Problem:
    return Problem(status, detail, headers=headers)


# In the process.


def receive(pipe: socket.socket) -> None:
    """Land what comes through the pipe, until its other end is closed, in whatever way."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the API is told as well, and ends this process last
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        messages = _messages(pipe)
        for (path, pickled), *early in messages:
            sys.path[:] = path  # first: what the settings name may be where only it leads
            settings: Settings = pickle.loads(pickled)  # noqa: S301 - from the process that started this one
            with service_from_settings(settings) as service:
                gc.freeze()
                gc.set_threshold(*COLLECT_AFTER)
                pipe.sendall(framed([]))  # it is ready
                land = partial(_land, service, Log(form=settings.log_format))
                for arrived in chain([early], messages):
                    queue = deque(items for message in arrived for items in message)
                    while queue:
                        pipe.sendall(framed([_told(each) for each in turn(land, together(queue, len))]))


def _messages(pipe: socket.socket) -> Iterator[list[Any]]:
    """Messages, those together that have come together."""
    messages = Messages()
    while data := pipe.recv(_CHUNK):
        if whole := list(messages.read(data)):
            yield whole


def _land(service: ExternalCrmService, log: Log, arrivals: list[Arrival]) -> list[Receipt]:
    try:
        return service.receive(arrivals)
    except Exception as error:
        told = {"error": type(error).__name__, "at": place_of(error)}
        log.error("webhooks cannot be stored", **told)  # noqa: TRY400 - a traceback may quote one
        raise


def _told(outcome: list[Receipt] | Exception) -> list[Receipt] | _Refusal:
    if isinstance(outcome, list):
        return outcome
    problem = problem_of(outcome)
    return problem.status, problem.detail, problem.headers


if __name__ == "__main__":
    receive(socket.socket(fileno=int(sys.argv[1])))
