"""Webhooks while the API is killed and the database taken away: none is lost, none counts twice.

`tools/prove_webhooks.py` plays the same with 50,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crm_pipeline_tests.databases import SqliteDatabases, migrate, postgres_url
from crm_pipeline_tests.postgres import PostgresServer
from crm_pipeline_tests.system.storm import Storm, crashed, locked, storm


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of its own that may die."""
    server = PostgresServer(durable=True)
    yield server
    server.close()


def assert_held(told: Storm) -> None:
    """Every claim held, and there was a storm."""
    assert told.wrong == [], told.moments
    assert sum(told.others.values()) > 0


def test_a_kill_and_a_lock_on_sqlite(tmp_path: Path, sqlite_databases: SqliteDatabases) -> None:
    """Every 200 is applied once in effect; everything else could be sent again."""
    with sqlite_databases.fresh() as url:
        away = locked(Path(url.removeprefix("sqlite:///")), 0.5)
        assert_held(storm(tmp_path, url, webhooks=400, senders=16, kills=1, aways=[away]))


def test_a_kill_and_a_dead_server_on_postgresql(tmp_path: Path, server: PostgresServer) -> None:
    """The same, with a database that crashes and recovers."""
    url = postgres_url(server.socket_folder, "postgres")
    migrate(url)
    aways = [crashed(server, 0.2)]
    assert_held(storm(tmp_path, url, webhooks=400, senders=16, kills=1, aways=aways))
