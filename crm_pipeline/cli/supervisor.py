"""Supervision: programs beside each other, started again when they die, stopped together."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, TypeAlias

from crm_pipeline.cli.processes import STOP_SECONDS, await_end, interrupt, kill, signals_ignored

Tell: TypeAlias = Callable[[str, str], None]
"""Takes a program's name and a line."""

_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds until a program is started again, after so many deaths in a row."""
_WELL_AFTER = 60.0
"""Seconds after which a program counts as well: its next death is the first one again."""
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Program:
    """One program to keep running."""

    name: str
    command: Sequence[str]
    after: tuple[str, int] | None = None
    """Host and port that somebody must listen on before it is started."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all of them are started with."""

    folder: Path
    environment: Mapping[str, str]
    keep_open: Sequence[IO[str]] = ()
    """Files they inherit, locks for one."""
    inherited: Sequence[int] = ()
    """File descriptors they inherit, sockets for one."""
    show: Tell | None = None
    """Gets their output; it goes where ours goes when not given."""


class Supervisor:
    """Keeps programs running for as long as its block lasts."""

    def __init__(self, programs: Sequence[Program], surroundings: Surroundings, note: Tell) -> None:
        """Start nothing yet; ``note`` is told of deaths."""
        self._kept = [_Kept(program, surroundings, note) for program in programs]

    def __enter__(self) -> Self:
        """Start what can be started."""
        self.look()
        return self

    def __exit__(self, *_error: object) -> None:
        """Ask all to end, then see to it one by one."""
        running = [kept.process for kept in self._kept if kept.process is not None]
        with signals_ignored():
            for process in running:
                interrupt(process)
            for process in running:  # asked once: a second time means at once
                await_end(process, STOP_SECONDS)
                _close_input(process)

    def look(self) -> None:
        """Start what is due, and take note of what has died."""
        for kept in self._kept:
            kept.look()

    def keep(self) -> None:
        """Keep them running until we are interrupted."""
        while True:
            self.look()
            time.sleep(_LOOK_SECONDS)

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of what runs, by name."""
        return {kept.program.name: kept.process.pid for kept in self._kept if kept.process is not None}


class _Kept:
    """A program with its present process, if it has one."""

    def __init__(self, program: Program, surroundings: Surroundings, note: Tell) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self._with = surroundings
        self._note = note
        self._due = self._since = time.monotonic()
        self._deaths = 0

    def look(self) -> None:
        if self.process is None:
            if time.monotonic() >= self._due and _answers(self.program.after):
                self._start()
        elif self.process.poll() is not None:
            self._bury(self.process)

    def _start(self) -> None:
        shown = self._with.show is not None
        self.process = subprocess.Popen(
            self.program.command,
            cwd=self._with.folder,
            env=self._with.environment,
            stdin=subprocess.PIPE,  # its end tells those who read it that we are gone; Dagster does not
            stdout=subprocess.PIPE if shown else None,
            stderr=subprocess.STDOUT if shown else None,
            start_new_session=True,
            pass_fds=[*(file.fileno() for file in self._with.keep_open), *self._with.inherited],
        )
        self._since = time.monotonic()
        if self._with.show is not None and self.process.stdout is not None:
            passed = (self.process.stdout, self.program.name, self._with.show)
            threading.Thread(target=_pass_on, args=passed, daemon=True).start()

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        """Kill what it left behind: nobody watches over that any more. Then wait a moment."""
        kill(process)
        _close_input(process)
        self.process = None
        lived = time.monotonic() - self._since
        self._deaths = 1 if lived > _WELL_AFTER else self._deaths + 1
        wait = _WAITS[min(self._deaths, len(_WAITS)) - 1]
        self._due = time.monotonic() + wait
        self._note(
            self.program.name, f"ended with code {process.returncode}; it is started again in {wait:.0f} s"
        )


def _close_input(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


def _pass_on(output: IO[bytes], name: str, show: Tell) -> None:
    """Until the last one who could write has closed it."""
    with output:
        for line in output:
            show(name, line.decode(errors="replace").rstrip("\n"))


def _answers(address: tuple[str, int] | None) -> bool:
    if address is None:
        return True
    try:
        socket.create_connection(address, timeout=1.0).close()
    except OSError:
        return False
    return True
