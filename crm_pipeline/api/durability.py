"""Durability: whether the database keeps what it has acknowledged, whatever happens to the machine."""

from __future__ import annotations

from sqlalchemy.engine import Connection, Engine

from crm_pipeline.settings import SettingsError
from crm_pipeline.store.engine import reading

_SQLITE_FULL = 2
_SAFE_JOURNALS = ("wal", "delete", "truncate", "persist")
_SAFE_COMMITS = ("on", "remote_apply", "remote_write", "local")


def require_durable(engine: Engine) -> None:
    """Refuse a database that may lose a commit: a webhook's sender will not send it again.

    Raises:
        SettingsError: it names the setting of the database that is wrong.
    """
    with reading(engine) as tx:
        wrong = _sqlite(tx) if tx.dialect.name == "sqlite" else _postgresql(tx)
    if wrong:
        raise SettingsError(f"DATABASE_URL: the database is not durable: {wrong}")


def _sqlite(tx: Connection) -> str:
    journal = str(tx.exec_driver_sql("PRAGMA journal_mode").scalar_one())
    if journal not in _SAFE_JOURNALS:
        return f"journal_mode is {journal}"
    level = int(tx.exec_driver_sql("PRAGMA synchronous").scalar_one())
    return "" if level >= _SQLITE_FULL else "synchronous is below FULL"


def _postgresql(tx: Connection) -> str:
    if tx.exec_driver_sql("SHOW fsync").scalar_one() != "on":
        return "fsync is off"
    commit = str(tx.exec_driver_sql("SHOW synchronous_commit").scalar_one())
    return "" if commit in _SAFE_COMMITS else f"synchronous_commit is {commit}"
