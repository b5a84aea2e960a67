"""`dev`: the pipeline with the user's own settings, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crm_pipeline.cli.options import Options


def dev(
    context: typer.Context,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the Dagster UI; a free one when it is taken.")
    ] = 3000,
    api_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the HTTP API; a free one when it is taken.")
    ] = 8080,
) -> None:
    """Run the HTTP API, the Dagster UI and its daemon on the settings in force, until Ctrl-C."""
    from crm_pipeline.api.app import require_safe
    from crm_pipeline.cli.dagster_home import storage_of
    from crm_pipeline.cli.dagster_ui import environment_without
    from crm_pipeline.cli.pipeline import Ports, pipeline
    from crm_pipeline.cli.processes import sole, stoppable, until_interrupted

    options = Options.of(context)
    if options.env_file:
        raise typer.BadParameter(
            "dev reads .env in the working folder: Dagster's processes do", param_hint="--env-file"
        )
    settings = options.settings()
    require_safe(settings)
    if not settings.external_crm_enabled:
        typer.echo("EXTERNAL_CRM_ENABLED is false: everything starts, nothing is pulled or pushed", err=True)
    project = Path.cwd()
    home = project / "var" / "dagster"
    with (
        stoppable(),
        sole(home.with_suffix(".lock")) as lock,  # two daemons on one home would undo each other's work
        pipeline(
            project,
            home,
            Ports(port, api_port),
            folder=project,
            environment=environment_without(()) | storage_of(settings),
            lock=lock,
        ) as running,
    ):
        typer.echo(f"Dagster UI: {running.ui_url}", err=True)
        typer.echo(f"HTTP API: {running.api_url} (Ctrl-C stops both)", err=True)
        until_interrupted(running.alive)
