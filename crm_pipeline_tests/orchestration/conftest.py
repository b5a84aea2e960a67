"""A Dagster instance as shipped: our dagster.yaml, in a folder with a space in its name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

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
