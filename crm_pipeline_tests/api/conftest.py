"""The HTTP API on a free port, with a real service and database behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from crm_pipeline_tests.api.served import Served, must_end, serving
from crm_pipeline_tests.databases import Databases, SqliteDatabases

Serve: TypeAlias = Callable[..., Served]


@pytest.fixture
def databases(request: pytest.FixtureRequest) -> Databases:
    """SQLite, unless a test says otherwise: below the HTTP side, everything is tested on both."""
    found: Databases = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_databases")
    return found


@pytest.fixture(scope="session")
def ending() -> Iterator[list[threading.Thread]]:
    """APIs that are about to end: all of them have, when the tests are done."""
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        must_end(thread)


@pytest.fixture
def serve(database_url: str, tmp_path: Path, ending: list[threading.Thread]) -> Iterator[Serve]:
    """Serve the API on an empty database, until the test ends: ``serve(connection, **settings)``."""
    with ExitStack() as stack:
        yield lambda connection="", **settings: stack.enter_context(
            _configured(tmp_path, connection, database_url=database_url, ending=ending, **settings)
        )


@pytest.fixture
def api(serve: Serve) -> Served:
    """The API with its usual settings."""
    return serve()


@pytest.fixture(scope="module")
def shared(sqlite_databases: SqliteDatabases) -> Iterator[Served]:
    """One API for all tests of a file that do not mind each other."""
    with sqlite_databases.fresh() as url, serving(database_url=url) as served:
        yield served


@contextmanager
def _configured(folder: Path, connection: str, **settings: Any) -> Iterator[Served]:
    if connection:
        (folder / "connection.yaml").write_text(connection)
        settings["external_crm_config"] = folder / "connection.yaml"
    with serving(**settings) as served:
        yield served
