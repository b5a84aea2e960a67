"""Fixtures of the sync tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from crm_pipeline.store.engine import open_database
from crm_pipeline_tests.databases import Databases, SqliteDatabases
from crm_pipeline_tests.sync.world import World


@pytest.fixture
def world(engine: Engine) -> World:
    """An empty world, on both databases."""
    return World(engine)


@pytest.fixture
def quick_engine(databases: Databases) -> Iterator[Engine]:
    """A database that need not survive a power cut."""
    yield from _quick(databases)


@pytest.fixture
def sqlite_quick_engine(sqlite_databases: SqliteDatabases) -> Iterator[Engine]:
    """The same, where the database makes no difference."""
    yield from _quick(sqlite_databases)


def _quick(databases: Databases) -> Iterator[Engine]:
    with databases.fresh() as url:
        engine = open_database(url)
        if engine.dialect.name == "sqlite":
            sa.event.listen(
                engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF")
            )
        yield engine
        engine.dispose()
