"""Child processes: started so that they can be stopped, and stopped with all they started."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import typer

from crm_pipeline.cli.options import CommandError

STOP_SECONDS = 20.0
"""How long children may take to end in order; Dagster takes about 4."""
_POLL_SECONDS = 0.1
_LAST_LINES = 15
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end the block as Ctrl-C does.

    A shell starts its background jobs with SIGINT ignored, and what is ignored stays so in
    every child; a handler of our own is reset to the default in them.
    """
    with _handling(signal.default_int_handler):
        yield


@contextmanager
def _handling(handler: Any) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def child(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    log: Path | None = None,
    keep_open: Sequence[IO[str]] = (),
    patience: float = STOP_SECONDS,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program beside the block, in a session of its own; at the end it and its children are gone.

    Args:
        command: program and arguments.
        folder: its working folder.
        environment: all its variables.
        log: file for its output; ours when not given.
        keep_open: files it inherits, locks for one.
        patience: seconds it is given to end in order.
    """
    with log.open("ab") if log else nullcontext() as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            start_new_session=True,
            pass_fds=[file.fileno() for file in keep_open],
        )
    try:
        yield process
    finally:
        with signals_ignored():  # a second Ctrl-C must not leave half of them behind
            stop(process, patience)


def signals_ignored() -> AbstractContextManager[None]:
    """Hear no request to end while the block lasts."""
    return _handling(signal.SIG_IGN)


def stop(process: subprocess.Popen[bytes], patience: float) -> None:
    """Ask with SIGINT, wait for the whole session, and kill what is left of it."""
    interrupt(process)
    await_end(process, patience)


def await_end(process: subprocess.Popen[bytes], patience: float) -> None:
    """Wait for the whole session of one that was asked, and kill what is left of it."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        process.poll()
        if not _group_lives(process.pid):
            break
        time.sleep(_POLL_SECONDS)
    else:
        kill(process)
    process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a process's session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end as Ctrl-C does."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def require_alive(name: str, process: subprocess.Popen[bytes], log: Path | None = None) -> None:
    """See that a child still runs.

    Raises:
        CommandError: it has ended; with the last lines of its log.
    """
    if process.poll() is None:
        return
    lines = log.read_text(errors="replace").splitlines()[-_LAST_LINES:] if log else []
    raise CommandError("\n".join([f"{name} ended by itself with code {process.returncode}", *lines]))


def wait_until(
    condition: Callable[[], bool], *, seconds: float, what: str, every: float = _POLL_SECONDS
) -> None:
    """Wait for a condition, looking ``every`` so many seconds.

    Raises:
        CommandError: it did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise CommandError(f"{what} took more than {seconds:.0f} seconds")
        time.sleep(every)


@contextmanager
def sole(lock: Path) -> Iterator[IO[str]]:
    """Hold a lock file; a child that inherits it holds it too, even when it outlives us.

    Raises:
        CommandError: somebody else holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                f"{lock.with_suffix('')} is in use by another process: stop that first"
            ) from None
        yield file


def until_interrupted(alive: Callable[[], None]) -> None:
    """Wait until ``alive`` raises or somebody stops us; say then that it takes a moment."""
    try:
        while True:
            alive()
            time.sleep(1.0)
    except KeyboardInterrupt:
        typer.echo(f"Stopping, which can take {STOP_SECONDS:.0f} seconds", err=True)


def usable_port(wanted: int) -> int:
    """Return this loopback port, or a free one where it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise CommandError("no port is free on this machine")
