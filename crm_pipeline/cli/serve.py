"""`serve`: the HTTP API, in the foreground."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from crm_pipeline.cli.options import Options

if TYPE_CHECKING:
    from crm_pipeline.api.spawned import Spawned
    from crm_pipeline.settings import Settings

_QUIET = "telemetry:\n  enabled: false\nnux:\n  enabled: false\n"
"""Dagster's settings away from the project's folder: it reports to nobody."""
_SWITCH_SECONDS = 0.0005
COUNTER = "CRM_PIPELINE_COUNTER"
"""Where the processes of one API count their callers together."""


def serve(
    context: typer.Context,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8080,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer.")] = 1,
    fd: Annotated[
        int | None, typer.Option(help="Listen on this open socket, and end with standard input.")
    ] = None,
) -> None:
    """Serve the HTTP API until Ctrl-C: webhooks in, fetch, push and status on request."""
    from crm_pipeline.api.server import listen, url_of
    from crm_pipeline.cli.dagster_home import export
    from crm_pipeline.cli.processes import stoppable

    options = Options.of(context)
    if options.env_file is not None:
        export(options.env_file)  # what a fetch runs in Dagster reads the environment
    settings = options.settings()
    with suppress(KeyboardInterrupt), stoppable():
        if fd is not None:
            with socket.socket(fileno=fd) as listener:
                _end_with_input()
                _serve(settings, listener, os.environ.get(COUNTER), lambda: None)
            return
        _find_dagster(settings)
        with listen(host, port) as listener:
            url = url_of(listener)

            def announce() -> None:
                options.answer({"url": url}, f"The API answers at {url} (Ctrl-C stops it)")

            if workers == 1:
                _serve(settings, listener, None, announce)
            else:
                _serve_by(workers, settings, listener, announce)


def _serve(
    settings: Settings, listener: socket.socket, counter: str | None, on_ready: Callable[[], None]
) -> None:
    """Answer in this process."""
    from crm_pipeline.api.spawned import spawn

    with closing(spawn()) as spawned:  # first: what follows takes a second to import, for both processes
        _serve_with(spawned, settings, listener, counter, on_ready)


def _serve_with(
    spawned: Spawned,
    settings: Settings,
    listener: socket.socket,
    counter: str | None,
    on_ready: Callable[[], None],
) -> None:
    from crm_pipeline.api.app import create_app, doubts
    from crm_pipeline.api.counting import Asking
    from crm_pipeline.api.durability import require_durable
    from crm_pipeline.api.limits import Limiter
    from crm_pipeline.api.logs import Log
    from crm_pipeline.api.receiver import Receiver
    from crm_pipeline.api.server import server
    from crm_pipeline.garbage import COLLECT_AFTER
    from crm_pipeline.logs import take_over_logging
    from crm_pipeline.service import service_from_settings

    # Work in other threads must not keep requests from being read for 5 ms, which is the default.
    sys.setswitchinterval(_SWITCH_SECONDS)
    log = Log(form=settings.log_format)
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    limiter = Limiter(settings.rate_limit, asked=Asking(Path(counter)).hit, log=log) if counter else None
    with service_from_settings(settings) as service, ExitStack() as stack:
        require_durable(service.engine)
        stack.callback(log.flush)
        receiver = stack.enter_context(closing(Receiver(settings, spawned)))
        app = create_app(service, log, limiter=limiter, land=receiver)
        take_over_logging(settings.log_format)
        for doubt in doubts(settings):
            log.warning(doubt)
        receiver.wait_until_ready()
        running = server(app, on_ready, whole=app.whole, notes=[app.refused])
        running.run(sockets=[listener])  # raises the signal that ended it once more, after an orderly end


def _serve_by(
    workers: int, settings: Settings, listener: socket.socket, on_start: Callable[[], None]
) -> None:
    """Keep processes running that answer at one socket, and share one count of callers and one of figures."""
    from crm_pipeline.api.app import create_app
    from crm_pipeline.api.counting import counting
    from crm_pipeline.api.durability import require_durable
    from crm_pipeline.api.logs import Log
    from crm_pipeline.cli.supervisor import Program, Supervisor, Surroundings
    from crm_pipeline.service import service_from_settings

    log = Log(form=settings.log_format)
    with service_from_settings(settings) as service:  # what no process could serve is refused once, here
        require_durable(service.engine)
        create_app(service, log)
    command = [sys.executable, "-m", "crm_pipeline.cli.main", "serve", "--fd", str(listener.fileno())]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="crm-api-")))
        own = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
        if settings.rate_limit_enabled and settings.rate_limit_storage is None:
            stack.enter_context(counting(folder / "counter"))
            own[COUNTER] = str(folder / "counter")
        started = Surroundings(Path.cwd(), os.environ | own, inherited=[listener.fileno()])
        programs = [Program(f"worker {number}", command) for number in range(1, workers + 1)]
        supervisor = Supervisor(programs, started, lambda name, text: log.error(text, process=name))
        stack.enter_context(supervisor)
        on_start()
        supervisor.keep()


def _end_with_input() -> None:
    """End in order when nobody is left who could write to standard input: the parent has died."""

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin: its lock would stop the interpreter from ending
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _find_dagster(settings: Settings) -> None:
    """Where runs are kept; away from the project's folder, in an instance of Dagster's own defaults."""
    from crm_pipeline.cli.dagster_home import find

    home = Path.cwd() / "var" / "dagster"
    if not (
        os.environ.get("DAGSTER_HOME") or settings.dagster_database_url or Path("dagster.yaml").is_file()
    ):
        if not (home / "dagster.yaml").exists():
            home.mkdir(parents=True, exist_ok=True)
            (home / "dagster.yaml").write_text(_QUIET)
        os.environ["DAGSTER_HOME"] = str(home)
    find(Path.cwd(), settings)
