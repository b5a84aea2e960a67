"""`db`: the database's shape, told and brought up to date."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from crm_pipeline import store
from crm_pipeline.store.migrate import newest
from crm_pipeline_tests.cli.conftest import Cli


def test_upgrade_brings_a_database_up_to_date(
    cli: Cli, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: status fails and says what helps. After: it is content, and upgrading again changes nothing."""
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    before = cli("db", "status")
    assert (before.code, before.out) == (1, "")
    assert "run crm-pipeline db upgrade" in before.err
    first, second = cli("db", "upgrade", "--json"), cli("db", "upgrade", "--json")
    assert (first.code, first.json) == (0, {"before": None, "revision": newest()})
    assert second.json == {"before": newest(), "revision": newest()}
    assert cli("db", "status").out == f"The database is at revision {newest()}.\n"


def test_the_newest_revision_is_the_one_alembic_ends_with() -> None:
    """It is told by the files' names, since starting up needs no Alembic otherwise."""
    folder = Path(store.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_heads() == [newest()]


def test_a_database_that_is_away_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: exit code 1, the driver's reason, no password."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:s3cr3t@127.0.0.1:1/crm")
    answer = cli("db", "status")
    assert answer.code == 1
    assert answer.err.startswith("Database: ")
    assert len(answer.err.splitlines()) == 1
    assert "s3cr3t" not in answer.err
