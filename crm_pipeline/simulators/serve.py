"""Serving an application on a port: in a thread for tests, in the foreground for people."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from crm_pipeline.simulators.faultlayer import CUT
from crm_pipeline.simulators.faults import parse_faults
from crm_pipeline.simulators.generic import CrmOptions, GenericCrm, create_app
from crm_pipeline.simulators.rewrite import parse_rewrite

START_TIMEOUT = 10.0
"""Seconds a server may take to come up or to go down."""
BACKLOG = 256


class CuttableProtocol(H11Protocol):
    """HTTP/1.1 whose applications may close their connection without an answer.

    ASGI has no word for that, so each request's scope carries the transport's ``close`` in ``extensions``.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hand the connection to every request that comes over it."""
        super().connection_made(transport)
        app: Any = self.app

        async def with_cut(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[CUT] = transport.close
            await app(scope, receive, send)

        self.app = with_cut


class _Server(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()


@contextlib.contextmanager
def running(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """Serve an application from a thread on 127.0.0.1 and yield its base URL; stop at the end.

    ``port`` 0 takes a free one.

    Raises:
        OSError: the port is taken.
        RuntimeError: the application did not start, or does not stop.
    """
    ready = threading.Event()
    failures: list[BaseException] = []
    with socket.create_server(("127.0.0.1", port), backlog=BACKLOG) as listener:
        server = _Server(_config(app), ready.set)

        def serve() -> None:
            try:
                server.run(sockets=[listener])
            except (Exception, SystemExit) as error:  # noqa: BLE001 - told to whoever waits
                failures.append(error)
            ready.set()

        thread = threading.Thread(target=serve, name="simulator", daemon=True)
        thread.start()
        if not ready.wait(START_TIMEOUT) or not server.started:
            server.should_exit = True
            raise RuntimeError("the application did not start") from next(iter(failures), None)
        try:
            yield _url(listener)
        finally:
            server.should_exit = True
            thread.join(START_TIMEOUT)
        if thread.is_alive() or failures:
            raise RuntimeError("the server did not end in order") from next(iter(failures), None)


def serve_forever(
    app: ASGIApp, *, host: str = "127.0.0.1", port: int = 8808, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve an application until SIGINT or SIGTERM. ``on_ready`` is told the base URL once it answers.

    Raises:
        OSError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=BACKLOG) as listener:
        url = _url(listener)
        server = _Server(_config(app), lambda: on_ready(url) if on_ready else None)
        # uvicorn raises the signal again after an orderly shutdown.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def run_generic(  # noqa: PLR0913 - one keyword for each option of the command line
    *,
    contacts: int = 1000,
    seed: int = 1,
    days: float = 30.0,
    host: str = "127.0.0.1",
    port: int = 8808,
    api_key: str = "sim-key",
    pagination: str = "cursor",
    envelope: str = "records",
    page_size: int = 100,
    page_size_max: int = 1000,
    faults: Iterable[str] = (),
    rewrite: Iterable[str] = (),
    batch_limit: int = 100,
    search_lag: float = 0.0,
    idempotency: bool = False,
    unique_enforced: bool = False,
    webhooks_to: str = "",
    webhook_secret: str = "",
    webhook_api_key: str = "",
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Run a seeded generic CRM in the foreground until SIGINT or SIGTERM.

    ``contacts`` were last changed within ``days`` before now. ``faults`` and ``rewrite`` are
    spelt as ``faults.SPELLINGS`` and ``rewrite.parse_rewrite`` say; the other options are those of
    ``CrmOptions``. ``on_ready`` is told the base URL once it answers; port 0 takes a free one.

    Raises:
        ValueError: an option, a fault or a rewriting is spelt wrongly; nothing was started.
        OSError: the address cannot be used.
    """
    options = CrmOptions(
        api_key=api_key,
        pagination=pagination,
        envelope=envelope,
        page_size=page_size,
        page_size_max=page_size_max,
        rewrite=parse_rewrite(rewrite),
        batch_limit=batch_limit,
        search_lag=search_lag,
        idempotency=idempotency,
        unique_enforced=unique_enforced,
        webhooks_to=webhooks_to,
        webhook_secret=webhook_secret,
        webhook_api_key=webhook_api_key,
    )
    parsed = parse_faults(faults, seed=seed)
    crm = GenericCrm.seeded(contacts, seed=seed, days=days, options=options, faults=parsed)
    serve_forever(create_app(crm), host=host, port=port, on_ready=on_ready)


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=CuttableProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
