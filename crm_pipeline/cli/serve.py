"""`serve`: the HTTP API, in the foreground."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crm_pipeline.cli.options import Options

if TYPE_CHECKING:
    from crm_pipeline.settings import Settings

_QUIET = "telemetry:\n  enabled: false\nnux:\n  enabled: false\n"
"""Dagster's settings away from the project's folder: it reports to nobody."""
_SWITCH_SECONDS = 0.0005


def serve(
    context: typer.Context,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8080,
) -> None:
    """Serve the HTTP API until Ctrl-C: webhooks in, fetch, push and status on request."""
    from crm_pipeline.api.app import create_app
    from crm_pipeline.api.durability import require_durable
    from crm_pipeline.api.logs import open_log, take_over_logging
    from crm_pipeline.api.protocol import listen, server, url_of
    from crm_pipeline.api.receiver import COLLECT_AFTER, Receiver
    from crm_pipeline.cli.dagster_home import export
    from crm_pipeline.cli.processes import stoppable
    from crm_pipeline.service import service_from_settings

    # Work in other threads must not keep requests from being read for 5 ms, which is the default.
    sys.setswitchinterval(_SWITCH_SECONDS)
    options = Options.of(context)
    if options.env_file is not None:
        export(options.env_file)  # what a fetch runs in Dagster reads the environment
    settings = options.settings()
    log = open_log()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    with (
        suppress(KeyboardInterrupt),
        stoppable(),
        service_from_settings(settings) as service,
        ExitStack() as stack,
    ):
        require_durable(service.engine)
        receiver = stack.enter_context(closing(Receiver(settings)))
        app = create_app(service, log, land=receiver)
        _find_dagster(settings)
        take_over_logging()
        if not settings.api_auth_enabled:
            log.warning("API_AUTH_ENABLED IS FALSE: everybody who reaches this address can read and write")
        with listen(host, port) as listener:
            url = url_of(listener)
            running = server(
                app, lambda: options.answer({"url": url}, f"The API answers at {url} (Ctrl-C stops it)")
            )
            running.run(sockets=[listener])  # raises the signal that ended it once more, after an orderly end


def _find_dagster(settings: Settings) -> None:
    """Without ``DAGSTER_HOME``, take the folder that ``dev`` uses."""
    from crm_pipeline.cli.dagster_home import furnish, storage_of

    os.environ.update(storage_of(settings))
    if not os.environ.get("DAGSTER_HOME"):
        project = Path.cwd()
        home = project / "var" / "dagster"
        if settings.dagster_database_url or (project / "dagster.yaml").is_file():
            furnish(project, home, os.environ)
        elif not (home / "dagster.yaml").exists():
            home.mkdir(parents=True, exist_ok=True)
            (home / "dagster.yaml").write_text(_QUIET)
        os.environ["DAGSTER_HOME"] = str(home)
