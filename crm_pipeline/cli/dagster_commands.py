"""`dagster`: its three processes, each ready for our code, one command for each."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from crm_pipeline.cli.options import CommandError, Options

app = typer.Typer(help="Run one of Dagster's processes.", no_args_is_help=True, rich_markup_mode=None)

CODE_PORT = 4000
_WORKSPACE = "deploy/workspace.yaml"
_CodeHost = Annotated[str, typer.Option(help="Where the code server listens.")]
_CodePort = Annotated[int, typer.Option(min=1, max=65535, help="Its port.")]


@app.command("code-server")
def code_server(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on; it has no login.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = CODE_PORT,
) -> None:
    """Run the code server: it holds the definitions and starts the runs."""
    _become(
        context,
        *("dagster", "api", "grpc", "--module-name", "crm_pipeline.definitions"),
        *("--location-name", "crm_pipeline", "--use-python-environment-entry-point"),
        *("--host", host, "--port", str(port)),
    )


@app.command()
def daemon(
    context: typer.Context, code_host: _CodeHost = "127.0.0.1", code_port: _CodePort = CODE_PORT
) -> None:
    """Run the daemon: schedules, sensors, the queue, backfills. One only."""
    _find_code_at(code_host, code_port)
    _become(context, "dagster._daemon", "run", "--workspace", str(_workspace()))


@app.command()
def webserver(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on; it has no login.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 3000,
    code_host: _CodeHost = "127.0.0.1",
    code_port: _CodePort = CODE_PORT,
) -> None:
    """Run the web interface."""
    _find_code_at(code_host, code_port)
    _become(
        context, "dagster_webserver", "--workspace", str(_workspace()), "--host", host, "--port", str(port)
    )


def _find_code_at(host: str, port: int) -> None:
    os.environ.update(CODE_SERVER_HOST=host, CODE_SERVER_PORT=str(port))


def _workspace() -> Path:
    path = Path.cwd() / _WORKSPACE
    if not path.is_file():
        raise CommandError(f"{Path.cwd()} holds no {_WORKSPACE}: run this in the project's own folder")
    return path


def _become(context: typer.Context, module: str, *arguments: str) -> NoReturn:
    """Give this process over to Dagster: whoever ends it, ends Dagster's own."""
    from crm_pipeline.cli.dagster_home import export, find

    options = Options.of(context)
    if options.env_file is not None:
        export(options.env_file)  # Dagster and what it runs read the environment
    find(Path.cwd(), options.settings())
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - no shell is wanted
