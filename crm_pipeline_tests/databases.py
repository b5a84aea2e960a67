"""Fresh databases for tests, each a cheap copy of one that was migrated once."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg import sql
from sqlalchemy import URL

from crm_pipeline.store.engine import open_database
from crm_pipeline.store.migrate import upgrade
from crm_pipeline_tests.postgres import SUPERUSER


class Databases(Protocol):
    """Where tests get databases of one kind."""

    def fresh(self, *, migrated: bool = True) -> AbstractContextManager[str]:
        """URL of a database without rows, gone afterwards; not migrated, it has no tables either."""


def migrate(url: str) -> None:
    """Give a database its tables."""
    engine = open_database(url)
    try:
        upgrade(engine)
    finally:
        engine.dispose()


class SqliteDatabases:
    """SQLite files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    @cached_property
    def _template(self) -> Path:
        path = self._folder / "template.db"
        migrate(f"sqlite:///{path}")
        return path

    @contextmanager
    def fresh(self, *, migrated: bool = True) -> Iterator[str]:
        """See ``Databases``."""
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        path = folder / "crm_pipeline.db"
        if migrated:
            shutil.copyfile(self._template, path)
        try:
            yield f"sqlite:///{path}"
        finally:
            shutil.rmtree(folder)


class PostgresDatabases:
    """Databases of one PostgreSQL server; ``prefix`` keeps the test workers apart."""

    def __init__(self, socket_folder: Path, prefix: str) -> None:
        self._socket_folder = socket_folder
        self._prefix = prefix
        self._numbers = itertools.count()
        self._server = psycopg.connect(
            host=str(socket_folder), user=SUPERUSER, dbname="postgres", autocommit=True
        )

    def close(self) -> None:
        """Give the connection back."""
        self._server.close()

    @cached_property
    def _template(self) -> str:
        name = f"{self._prefix}_template"
        self._create(name, "template1")
        migrate(self._url(name))
        return name

    @contextmanager
    def fresh(self, *, migrated: bool = True) -> Iterator[str]:
        """See ``Databases``."""
        name = f"{self._prefix}_{next(self._numbers)}"
        self._create(name, self._template if migrated else "template1")
        try:
            yield self._url(name)
        finally:
            self._server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _create(self, name: str, template: str) -> None:
        command = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self._server.execute(command.format(sql.Identifier(name), sql.Identifier(template)))

    def _url(self, name: str) -> str:
        return postgres_url(self._socket_folder, name)


def postgres_url(socket_folder: Path, name: str) -> str:
    """URL of a database on a server of ours."""
    url = URL.create("postgresql+psycopg", SUPERUSER, database=name, query={"host": str(socket_folder)})
    return url.render_as_string(hide_password=False)
