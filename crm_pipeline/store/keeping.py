"""Keeping a lease for as long as its work lasts, by a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from crm_pipeline.store import leases
from crm_pipeline.store.engine import writing

_RENEWALS_IN_A_TERM = 4


@contextmanager
def kept(engine: Engine, name: str, holder: str, clock: Callable[[], datetime]) -> Iterator[None]:
    """Renew a lease that is held while the block lasts, or until another takes it; it is not given back."""
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(leases.TERM.total_seconds() / _RENEWALS_IN_A_TERM):
            try:
                with writing(engine) as tx:
                    if not leases.renew(tx, name, holder, clock()):
                        return
            except OperationalError:  # the database is away: what needs it will say so
                continue

    keeper = threading.Thread(target=keep, name="lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()


def give_back(engine: Engine, name: str, holder: str) -> None:
    """Give a lease back; while the database is away, to this process at least: it need not outwait itself."""
    try:
        with writing(engine) as tx:
            leases.release(tx, name, holder)
    except DBAPIError:
        leases.give_up(holder)
        raise
