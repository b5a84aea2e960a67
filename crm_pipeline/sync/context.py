"""What every step works with: one connection, its database, its connector, its lease."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TypeAlias

from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.engine import Engine

from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import Connector
from crm_pipeline.store import leases
from crm_pipeline.store.engine import reading, writing
from crm_pipeline.store.keeping import give_back, kept
from crm_pipeline.sync.errors import BusyError, LeaseLostError
from crm_pipeline.sync.mapping import FieldMapping, Translator

Clock: TypeAlias = Callable[[], datetime]
Progress: TypeAlias = Callable[[int, int | None], None]


def no_progress(_done: int, _total: int | None) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Context:
    """One worker on one connection."""

    engine: Engine
    connection: Connection
    connect: Callable[[], Connector]
    """Applying what has landed needs no CRM: it must work where none can be reached, or none is set up."""
    mapping: FieldMapping
    translator: Translator
    run_id: str
    clock: Clock
    holder: str = field(default_factory=leases.new_holder)

    @cached_property
    def connector(self) -> Connector:
        """The CRM, connected when first used.

        Raises:
            ConnectorSetupError: the settings do not say how to reach it.
        """
        return self.connect()

    @property
    def calls(self) -> int:
        """HTTP requests sent to the CRM so far."""
        return self.connector.calls if "connector" in self.__dict__ else 0

    @property
    def name(self) -> str:
        """The connection's name."""
        return self.connection.name

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent view."""
        with reading(self.engine) as tx:
            yield tx

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction of the worker that holds the lease.

        Raises:
            LeaseLostError: it holds it no more; nothing was written.
        """
        with writing(self.engine) as tx:
            if not leases.renew(tx, self.name, self.holder, self.clock()):
                msg = f"the lease on connection '{self.name}' was taken over by another worker"
                raise LeaseLostError(msg)
            yield tx


@contextmanager
def lease_held(context: Context, wait_seconds: float = 0.0) -> Iterator[None]:
    """Be the one worker on the connection, also while a CRM call lasts.

    Raises:
        BusyError: another worker held it all the time that we waited.
    """
    deadline = context.clock() + timedelta(seconds=wait_seconds)
    while not _take(context):
        if context.clock() >= deadline:
            msg = f"another run is working on connection '{context.name}'"
            raise BusyError(msg)
        time.sleep(_RETRY_SECONDS)
    try:
        with kept(context.engine, context.name, context.holder, context.clock):
            yield
    finally:
        give_back(context.engine, context.name, context.holder)


_RETRY_SECONDS = 0.2


def _take(context: Context) -> bool:
    with writing(context.engine) as tx:
        return leases.take(tx, context.name, context.holder, context.clock())
