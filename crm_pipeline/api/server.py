"""The server: an application and its shorter ways behind listening sockets."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import uvicorn
from starlette.types import ASGIApp

from crm_pipeline.api.protocol import Bounds, GuardedProtocol, Note
from crm_pipeline.api.whole import Heads, Whole

BACKLOG = 1024


class Server(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        """``on_ready`` is called once."""
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def server(
    app: ASGIApp,
    on_ready: Callable[[], None],
    *,
    bounds: Bounds | None = None,
    whole: Mapping[tuple[str, str], Whole] | None = None,
    notes: Sequence[Note] = (),
) -> Server:
    """A server for the application and its shorter ways; run it with the sockets to listen on."""
    bounds = bounds or Bounds()
    own = {"bounds": bounds, "held": Counter(), "heads": Heads(), "whole": whole or {}, "notes": notes}
    protocol = type("Protocol", (GuardedProtocol,), own)
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=bounds.drain_seconds,
    )
    return Server(config, on_ready)


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 takes a free one.

    Raises:
        OSError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def url_of(listener: socket.socket) -> str:
    """The base URL a listening socket answers at."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
