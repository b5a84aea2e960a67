"""`up`: the pipeline as processes of their own on one machine, each started again when it dies."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import typer

from crm_pipeline.cli.dagster_commands import CODE_PORT
from crm_pipeline.cli.options import Options
from crm_pipeline.cli.supervisor import Program

OURS = (sys.executable, "-m", "crm_pipeline.cli.main")


def up(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Dagster UI.")] = 3000,
    api_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the HTTP API.")] = 8080,
    code_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the code server.")] = CODE_PORT,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes of the HTTP API.")] = 2,
) -> None:
    """Run code server, daemon, web server and HTTP API until Ctrl-C, all on this machine alone."""
    from crm_pipeline.api.app import require_safe
    from crm_pipeline.cli.dagster_home import find
    from crm_pipeline.cli.processes import sole, stoppable
    from crm_pipeline.cli.supervisor import Supervisor, Surroundings

    options, project = Options.of(context), Path.cwd()
    if options.env_file:
        raise typer.BadParameter("up reads .env in the working folder", param_hint="--env-file")
    settings = options.settings()
    require_safe(settings)
    home = find(project, settings)
    with ExitStack() as stack:
        stack.enter_context(suppress(KeyboardInterrupt))
        stack.enter_context(stoppable())
        lock = stack.enter_context(
            sole(home.with_suffix(".lock"))
        )  # two daemons would undo each other's work
        started = Surroundings(project, os.environ, keep_open=[lock], show=_show)
        supervisor = Supervisor(programs(port, api_port, code_port, workers), started, _show)
        stack.enter_context(supervisor)
        typer.echo(f"Dagster UI: http://127.0.0.1:{port}", err=True)
        typer.echo(f"HTTP API: http://127.0.0.1:{api_port} (Ctrl-C stops everything)", err=True)
        supervisor.keep()


def _show(name: str, line: str) -> None:
    typer.echo(f"{name:<6} | {line}", err=True)


def programs(port: int, api_port: int, code_port: int, workers: int) -> list[Program]:
    """What runs, in the order it is started."""
    code = ("127.0.0.1", code_port)
    at_code = ("--code-port", str(code_port))
    return [
        Program("code", [*OURS, "dagster", "code-server", "--port", str(code_port)]),
        Program("api", [*OURS, "serve", "--port", str(api_port), "--workers", str(workers)]),
        Program("daemon", [*OURS, "dagster", "daemon", *at_code], after=code),
        Program("web", [*OURS, "dagster", "webserver", "--port", str(port), *at_code], after=code),
    ]
