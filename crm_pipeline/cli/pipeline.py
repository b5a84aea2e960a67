"""All of the pipeline on this machine: Dagster and the HTTP API, started and stopped together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from crm_pipeline.cli.dagster_ui import dagster_dev
from crm_pipeline.cli.http_api import http_api
from crm_pipeline.cli.processes import require_alive, usable_port


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the two listen, on loopback; a free port where one is taken."""

    ui: int
    api: int


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What runs."""

    ui_url: str
    api_url: str
    alive: Callable[[], None]
    """Raises ``CommandError`` when one of the two has ended."""


@contextmanager
def pipeline(
    project: Path,
    home: Path,
    ports: Ports,
    *,
    folder: Path,
    environment: Mapping[str, str],
    lock: IO[str],
    logs: Path | None = None,
) -> Iterator[Pipeline]:
    """Run both.

    Args:
        project: folder with Dagster's files.
        home: Dagster's own folder.
        ports: to listen on.
        folder: working folder of all processes, whose ``.env`` they read.
        environment: their variables.
        lock: a file they keep open.
        logs: folder for their output; ours when not given.

    Raises:
        CommandError: the project's folder is another one, or no port is free.
    """
    ui_port, api_port = usable_port(ports.ui), usable_port(ports.api)
    dagster_log, api_log = (logs / name if logs else None for name in ("dagster.log", "api.log"))
    with (
        dagster_dev(
            project,
            home,
            ui_port,
            folder=folder,
            environment=environment,
            log=dagster_log,
            keep_open=[lock],
        ) as dagster,
        http_api(
            api_port, home, folder=folder, environment=environment, log=api_log, keep_open=[lock]
        ) as api,
    ):

        def alive() -> None:
            require_alive("Dagster", dagster, dagster_log)
            require_alive("The API", api, api_log)

        yield Pipeline(f"http://127.0.0.1:{ui_port}", f"http://127.0.0.1:{api_port}", alive)
