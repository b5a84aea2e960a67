"""A Dagster instance as shipped: our dagster.yaml, in a folder with a space in its name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.simulators.generic import CONTACTS_PATH, CrmOptions, GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline_tests.databases import Databases
from crm_pipeline_tests.orchestration.world import CONNECTION, DAYS, SEEDED, World

SHIPPED = Path(__file__).parents[2] / "dagster.yaml"


@pytest.fixture(scope="session")
def dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a DAGSTER_HOME that holds what we ship."""
    home = tmp_path_factory.mktemp("dagster home")
    shutil.copy(SHIPPED, home / "dagster.yaml")
    return home


@pytest.fixture(scope="session")
def _shared_instance(dagster_home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        yield instance


@pytest.fixture
def instance(_shared_instance: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """The instance, without runs and events: making one anew takes half a second."""
    yield _shared_instance
    _shared_instance.wipe()


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """A CRM whose contacts changed over the last days, and an empty database.

    On SQLite, unless a test says otherwise: below the jobs, everything is tested on both.
    """
    (tmp_path / "crm.yaml").write_text(CONNECTION)
    crm = GenericCrm.seeded(SEEDED, days=DAYS, options=CrmOptions(api_key="sim-key"))
    databases: Databases = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_databases")
    with databases.fresh() as database_url, running(create_app(crm)) as base:
        for name, value in {
            "EXTERNAL_CRM_ENABLED": "true",
            "EXTERNAL_CRM_API_URL": base + CONTACTS_PATH,
            "EXTERNAL_CRM_CONFIG": str(tmp_path / "crm.yaml"),
            "EXTERNAL_CRM_SYNC_MODE": "polling",
            "EXTERNAL_CRM_PUSH": "auto",
            "THE_KEY": "sim-key",
            "THE_DATABASE": database_url,
        }.items():
            monkeypatch.setenv(name, value)
        yield World(
            crm,
            instance,
            database_url,
            {
                "external_crm": ExternalCrm(api_key=dg.EnvVar("THE_KEY")),
                "database": Database(url=dg.EnvVar("THE_DATABASE")),
            },
        )
