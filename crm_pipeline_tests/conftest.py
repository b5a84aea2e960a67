"""What every test can count on: both databases, a folder of its own, a clean environment, no network."""

from __future__ import annotations

import gc
import ipaddress
import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from crm_pipeline.garbage import COLLECT_AFTER
from crm_pipeline_tests.postgres import PostgresServer

if TYPE_CHECKING:  # tests of pure code should not wait for the database's modules
    from sqlalchemy import Engine

    from crm_pipeline_tests.databases import Databases, PostgresDatabases, SqliteDatabases

# More examples on request: pytest --hypothesis-profile=deep
settings.register_profile("fast", max_examples=50, deadline=None)
# The gate tries the same examples each time; new ones are looked for by the deep profile.
settings.register_profile("ci", max_examples=100, deadline=None, print_blob=True, derandomize=True)
settings.register_profile("deep", max_examples=5_000, deadline=None, print_blob=True)
settings.register_profile("repeatable", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("fast")

# A zone that is not UTC and not the developer's: code that takes local time for UTC fails here.
os.environ["TZ"] = "Asia/Jakarta"
time.tzset()

OURS = (
    "ALERT_",
    "ALLOWED_IPS",
    "API_AUTH_ENABLED",
    "CRM_API_KEY",
    "DAGSTER_",
    "DATABASE_URL",
    "EXTERNAL_CRM_",
    "LOG_FORMAT",
    "PG",
    "RATE_LIMIT",
    "TRUSTED_PROXIES",
    "WEBHOOK_APPLY",
)
for name in tuple(os.environ):  # a developer's own settings must never steer, or be reached by, a test
    if name.startswith(OURS) or name.lower().endswith("_proxy"):
        del os.environ[name]


class NetworkClosedError(Exception):
    """A test reached for a host beyond this one. No OSError: the code under test must not handle it."""


def _loopback_only(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: refuses every address that is not on this host, before anything is sent."""
    match event, arguments:
        case (("socket.connect" | "socket.sendto" | "socket.sendmsg"), (_, (host, *_))):
            pass
        case (("socket.getaddrinfo" | "socket.gethostbyname"), (host, *_)):
            pass
        case _:
            return
    if isinstance(host, bytes):
        host = host.decode()
    try:
        local = host in (None, "", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise NetworkClosedError(f"{event} to {host}: tests stay on this host")


sys.addaudithook(_loopback_only)


def pytest_collection_finish() -> None:
    """What the modules hold stays: to look through all of it for garbage was a tenth of the suite's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each pytest-xdist worker begin with its part of the long tests: those with a timeout of their own.

    A minute of a test that comes last is a minute in which the other workers have nothing to do.
    Workers are given equal parts of the list, the remainder going to the last ones.
    """
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.get_closest_marker("timeout")]
    others = iter([item for item in items if not item.get_closest_marker("timeout")])
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        share = (len(items) - len(ordered)) // (workers - worker)
        first = long[worker::workers]
        ordered += [*first, *itertools.islice(others, max(0, share - len(first)))]
    items[:] = [*ordered, *others]


_server = pytest.StashKey[PostgresServer]()


def _socket_folder(config: pytest.Config) -> Path:
    """The session's one PostgreSQL server, started when first asked for; its end is the session's."""
    if _server not in config.stash:
        config.stash[_server] = server = PostgresServer()
        config.add_cleanup(server.close)
    return config.stash[_server].socket_folder


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each pytest-xdist worker where the server is that they share."""
    node.workerinput["socket_folder"] = str(_socket_folder(node.config))


@pytest.fixture(scope="session")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> SqliteDatabases:
    """SQLite databases."""
    from crm_pipeline_tests.databases import SqliteDatabases

    return SqliteDatabases(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def postgresql_databases(request: pytest.FixtureRequest) -> Iterator[PostgresDatabases]:
    """PostgreSQL databases."""
    from crm_pipeline_tests.databases import PostgresDatabases

    worker: dict[str, str] = getattr(request.config, "workerinput", {})
    folder = Path(worker["socket_folder"]) if worker else _socket_folder(request.config)
    databases = PostgresDatabases(folder, worker.get("workerid", "main"))
    yield databases
    databases.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest) -> Databases:
    """Databases of either kind: the test runs on both."""
    found: Databases = request.getfixturevalue(f"{request.param}_databases")
    return found


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """URL of a migrated database without rows."""
    with databases.fresh() as url:
        yield url


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """URL of a database without tables."""
    with databases.fresh(migrated=False) as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An open, migrated database without rows."""
    from crm_pipeline.store.engine import open_database

    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder: no ``.env`` and no ``var/`` of the developer's is in reach."""
    monkeypatch.chdir(tmp_path)
