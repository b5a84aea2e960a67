"""Taking turns: whoever waits to write to a SQLite file comes in next, before who has just written.

SQLite lets in whoever asks at the right moment, and who waits asks every 100 ms only. A worker that begins
its next transaction a few milliseconds after the last comes first again and again: a webhook beside it
waited for seconds. So whoever waits holds a lock on a small file beside the database, and whoever comes
later stands behind it. It is a courtesy: that nobody writes while another does is SQLite's doing, as ever,
and programs that know nothing of it are only not let in first.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

_LOOK_SECONDS = 0.002
_COURTESY_SECONDS = 1.0
"""For so long one stands behind another: a stopped process must not keep everybody from an idle database."""


def take_turn(database: Path, attempt: Callable[[], bool], seconds: float) -> None:
    """Try until it is over, as the one who comes in next, and for so many seconds at the most."""
    until = time.monotonic() + seconds
    with _next(database):
        _wait(attempt, until)


@contextmanager
def _next(database: Path) -> Iterator[None]:
    """Be the one who comes in next; behind whoever is that already, but not for ever.

    Where there can be no such file or lock, nobody is waited for.
    """
    try:
        mode = database.stat().st_mode & 0o666  # who may not read it must not hold up who writes to it
        place = os.open(f"{database}-turn", os.O_RDONLY | os.O_CREAT, mode)
    except OSError:  # no room, or no right: whatever keeps us from writing will say so itself
        yield
        return
    try:
        with suppress(OSError):  # a file system without such locks
            _wait(partial(_locked, place), time.monotonic() + _COURTESY_SECONDS)
        yield
    finally:
        os.close(place)  # and the lock with it, as when a process is killed


def _wait(attempt: Callable[[], bool], until: float) -> None:
    while not attempt() and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)


def _locked(place: int) -> bool:
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
