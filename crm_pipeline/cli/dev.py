"""`dev`: the pipeline with the user's own settings, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crm_pipeline.cli.options import CommandError, Options


def dev(
    context: typer.Context,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the Dagster UI; a free one when it is taken.")
    ] = 3000,
) -> None:
    """Run the Dagster UI and daemon on the settings in force, until Ctrl-C."""
    from crm_pipeline.cli.dagster_ui import dagster_dev, environment_without
    from crm_pipeline.cli.processes import sole, stoppable, usable_port

    options = Options.of(context)
    if options.env_file:
        raise typer.BadParameter(
            "dev reads .env in the working folder: Dagster's processes do", param_hint="--env-file"
        )
    settings = options.settings()
    if not settings.external_crm_enabled:
        typer.echo("EXTERNAL_CRM_ENABLED is false: everything starts, nothing is pulled or pushed", err=True)
    project = Path.cwd()
    home = project / "var" / "dagster"
    port = usable_port(port)
    with (
        stoppable(),
        sole(home.with_suffix(".lock")) as lock,  # two daemons on one home would undo each other's work
        dagster_dev(
            project,
            home,
            port,
            folder=project,
            environment=environment_without(()),
            keep_open=[lock],
        ) as process,
    ):
        typer.echo(f"Dagster UI: http://127.0.0.1:{port} (Ctrl-C stops it)", err=True)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            return
    raise CommandError(f"Dagster ended by itself with code {code}")
