"""Dagster's own folder: the instance file it gets, and the variables that go with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from crm_pipeline.cli.options import CommandError
from crm_pipeline.settings import Settings

STORAGE = "DAGSTER_POSTGRES_URL"
"""Where ``deploy/dagster.postgres.yaml`` finds its database. Not the setting's own name: from ``.env``,
Dagster would put that back as it is written there, without the driver."""
_INSTANCE = "dagster.yaml"
_ON_POSTGRESQL = "deploy/dagster.postgres.yaml"


def storage_of(settings: Settings) -> dict[str, str]:
    """The variable that says where Dagster keeps its runs; none where that is SQLite in its folder."""
    return {STORAGE: settings.dagster_database_url} if settings.dagster_database_url else {}


def furnish(project: Path, home: Path, environment: Mapping[str, str]) -> None:
    """Make Dagster's folder and copy the instance file there that goes with the environment.

    Raises:
        CommandError: the project's folder is another one.
    """
    shipped = project / (_ON_POSTGRESQL if STORAGE in environment else _INSTANCE)
    if not shipped.is_file():
        raise CommandError(
            f"{project} holds no {shipped.relative_to(project)}: run this in the project's own folder"
        )
    home.mkdir(parents=True, exist_ok=True)
    fresh = home / f"{_INSTANCE}.{os.getpid()}"
    shutil.copyfile(shipped, fresh)
    fresh.replace(home / _INSTANCE)  # whole at every moment: another process may be reading it


def find(project: Path, settings: Settings) -> Path:
    """Put into our environment where Dagster's folder is: ``DAGSTER_HOME`` as it is, or the one ``dev`` uses.

    Raises:
        CommandError: it is the latter, and the project's folder is another one.
    """
    os.environ.update(storage_of(settings))
    if not os.environ.get("DAGSTER_HOME"):
        home = project / "var" / "dagster"
        furnish(project, home, os.environ)
        os.environ["DAGSTER_HOME"] = str(home)
    return Path(os.environ["DAGSTER_HOME"])


def export(env_file: Path) -> None:
    """Put a file's variables beside our own, which win, for programs that read the environment."""
    from dotenv import dotenv_values

    for name, value in dotenv_values(env_file).items():
        if value and not os.environ.get(name):
            os.environ[name] = value
