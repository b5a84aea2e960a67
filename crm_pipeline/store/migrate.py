"""Migrations: the database is brought to the shape this version needs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from crm_pipeline.store.engine import reading, writing

_MIGRATIONS = Path(__file__).parent / "migrations"
_VERSION = sa.table("crm_pipeline_version", sa.column("version_num", sa.Text))
"""Not Alembic's usual name: the database is shared, and others use Alembic as well."""
_LOCK = 0x63726D  # any number, the same in every version of this program


def upgrade(engine: Engine) -> None:
    """Apply what is missing, all or nothing; two programs starting at once wait for each other."""
    if is_current(engine):
        return
    from alembic import command  # noqa: PLC0415 - a tenth of what starting the API imports, seldom needed
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    # Alembic reads '%' in options as its own interpolation.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["version_table"] = _VERSION.name
    with writing(engine) as tx:
        if tx.dialect.name == "postgresql":
            tx.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config.attributes["connection"] = tx
        command.upgrade(config, "head")


def is_current(engine: Engine) -> bool:
    """Whether nothing is missing."""
    with reading(engine) as tx:
        return applied(tx) == newest()


def applied(tx: Connection) -> str | None:
    """The revision a database is at; None for an empty one."""
    if not sa.inspect(tx).has_table(_VERSION.name):
        return None
    return tx.execute(sa.select(_VERSION.c.version_num)).scalar_one_or_none()


@cache
def newest() -> str:
    """The revision this version of the program needs. They are numbered, and their files named by it."""
    return max(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))
