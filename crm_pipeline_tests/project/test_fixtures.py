"""What conftest.py promises to every test."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
import requests
import sqlalchemy as sa

from crm_pipeline.store.migrate import is_current
from crm_pipeline_tests.conftest import NetworkClosedError
from crm_pipeline_tests.databases import Databases


@pytest.mark.parametrize("host", ["crm.example", "192.0.2.1", "[2001:db8::1]"])
def test_network_is_closed(host: str) -> None:
    """A request to another host fails before anything is sent, and not as a network error."""
    with pytest.raises(NetworkClosedError, match="stay on this host"):
        requests.get(f"http://{host}/", timeout=1)


def test_datagrams_stay_here_too() -> None:
    """So does a datagram, which needs no connection."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp, pytest.raises(NetworkClosedError):
        udp.sendto(b"", ("192.0.2.1", 9))


def test_loopback_is_open() -> None:
    """Servers of the tests on this host are reached."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()[:2]):
        server.accept()[0].close()


def test_folder_is_empty_and_zone_is_not_utc() -> None:
    """A test starts in an empty folder, seven hours ahead of UTC."""
    assert list(Path.cwd().iterdir()) == []
    assert time.localtime().tm_gmtoff == 7 * 3600
    assert not [name for name in os.environ if name.startswith(("EXTERNAL_CRM_", "DAGSTER_"))]


@pytest.mark.parametrize("_time", ["first", "second"])
def test_database_is_migrated_and_fresh(engine: sa.Engine, _time: str) -> None:
    """Every test gets the newest tables without rows, whatever another one did."""
    assert is_current(engine)
    with engine.begin() as tx:
        assert tx.execute(sa.text("SELECT count(*) FROM contacts")).scalar_one() == 0
        tx.execute(sa.text("CREATE TABLE left_behind (id INTEGER)"))


def test_empty_database_is_empty(empty_database_url: str) -> None:
    """A database for the migration tests has no tables."""
    engine = sa.create_engine(empty_database_url)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


def test_databases_are_gone_afterwards(databases: Databases) -> None:
    """A database is removed when its test ends, connections that were forgotten included."""
    with databases.fresh() as url:
        engine = sa.create_engine(url)
        forgotten = engine.connect()
    path = engine.url.database or ""
    if engine.dialect.name == "sqlite":
        assert not Path(path).exists()
    else:
        with pytest.raises(sa.exc.OperationalError, match="does not exist"):
            sa.create_engine(url).connect()
    forgotten.invalidate()
    engine.dispose()
