"""Dagster's own storage on PostgreSQL, chosen by the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.run_coordinator import QueuedRunCoordinator

from crm_pipeline import instants
from crm_pipeline.cli.dagster_home import STORAGE, furnish, storage_of
from crm_pipeline.cli.options import CommandError
from crm_pipeline.settings import load_settings
from crm_pipeline_tests.databases import PostgresDatabases
from crm_pipeline_tests.orchestration.history import add_run

PROJECT = Path(__file__).parents[2]


@dg.asset
def _told() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"seen": 3})


@pytest.fixture
def on_postgresql(
    postgresql_databases: PostgresDatabases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance as a user gets it who sets the one variable, written as for our own tables."""
    home = tmp_path / "dagster home"
    with postgresql_databases.fresh(migrated=False) as url:
        monkeypatch.setenv("DAGSTER_DATABASE_URL", url)
        for name, value in storage_of(load_settings()).items():
            monkeypatch.setenv(name, value)
        furnish(PROJECT, home, storage_of(load_settings()))
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield instance


def test_runs_and_events_are_kept_there(on_postgresql: dg.DagsterInstance, tmp_path: Path) -> None:
    """A run that works tells its figures; of the record, nothing lies in the folder."""
    result = dg.materialize([_told], instance=on_postgresql)
    assert result.success
    found = on_postgresql.get_latest_materialization_event(_told.key)
    assert found is not None
    assert found.asset_materialization is not None
    assert found.asset_materialization.metadata["seen"].value == 3
    assert on_postgresql.get_run_stats(result.run_id).materializations == 1
    assert list(on_postgresql.all_instigator_state()) == []
    queued = add_run(on_postgresql, "pull_job", dg.DagsterRunStatus.QUEUED)
    assert queued in {run.run_id for run in on_postgresql.get_runs()}
    assert isinstance(on_postgresql.run_coordinator, QueuedRunCoordinator)
    assert list(tmp_path.rglob("*.db")) == []


def test_its_times_are_told_in_utc(on_postgresql: dg.DagsterInstance) -> None:
    """Whatever the server's zone: polls and rests are counted from them. The tests' server is not in UTC."""
    add_run(on_postgresql, "pull_job", dg.DagsterRunStatus.FAILURE)
    (record,) = on_postgresql.get_run_records()
    for at in (record.create_timestamp, record.update_timestamp):
        assert abs((instants.now() - at).total_seconds()) < 60


def test_the_two_files_differ_in_the_storage_only() -> None:
    """Pools, limits, monitoring, retries, retention: whoever changes one file changes the other."""
    embedded = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    shared = yaml.safe_load((PROJECT / "deploy" / "dagster.postgres.yaml").read_text())
    assert shared.pop("storage") == {"postgres": {"postgres_url": {"env": STORAGE}}}
    assert shared == embedded


def test_without_the_variable_it_is_sqlite(tmp_path: Path) -> None:
    """The embedded file is the default, and a folder without ours is refused before anything is made."""
    assert storage_of(load_settings()) == {}
    furnish(PROJECT, tmp_path / "home", {})
    assert (tmp_path / "home" / "dagster.yaml").read_text() == (PROJECT / "dagster.yaml").read_text()
    with pytest.raises(CommandError, match=r"holds no deploy/dagster\.postgres\.yaml"):
        furnish(tmp_path, tmp_path / "other", {STORAGE: "postgresql+psycopg2://db/dagster"})
    assert not (tmp_path / "other").exists()
