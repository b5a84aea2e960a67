"""Migrations: the database is brought to the shape this version needs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection, Engine

from crm_pipeline.store.engine import reading, writing

_LOCK = 0x63726D  # any number, the same in every version of this program


def upgrade(engine: Engine) -> None:
    """Apply what is missing, all or nothing; two programs starting at once wait for each other."""
    if is_current(engine):
        return
    with writing(engine) as tx:
        if tx.dialect.name == "postgresql":
            tx.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config = _config()
        config.attributes["connection"] = tx
        command.upgrade(config, "head")


def is_current(engine: Engine) -> bool:
    """Whether nothing is missing."""
    with reading(engine) as tx:
        return applied(tx) == newest()


def applied(tx: Connection) -> str | None:
    """The revision a database is at; None for an empty one."""
    return MigrationContext.configure(tx, opts={"version_table": _VERSION_TABLE}).get_current_revision()


@cache
def newest() -> str | None:
    """The revision this version of the program needs."""
    return ScriptDirectory.from_config(_config()).get_current_head()


_VERSION_TABLE = "crm_pipeline_version"
"""Not Alembic's usual name: the database is shared, and others use Alembic as well."""


def _config() -> Config:
    config = Config()
    # Alembic reads '%' in options as its own interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["version_table"] = _VERSION_TABLE
    return config
