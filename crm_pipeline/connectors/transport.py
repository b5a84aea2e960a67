"""HTTP connections whose answers cannot trickle for ever, and whose logs hold no query.

A socket's timeout starts again with every byte, so a peer that sends one byte a second is
never too slow for it. Here every read, of headers and of body alike, looks at the deadline
of the whole call.
"""

from __future__ import annotations

import http.client
import io
import logging
import math
import re
import socket
import threading
import time
from functools import partial
from typing import Any, cast

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

READ_AHEAD = 64 * 1024
_QUERY = re.compile(r"\?\S*")


class Deadline(threading.local):
    """When the call under way in this thread must be over, by ``time.monotonic``."""

    at: float = math.inf

    def passed(self) -> bool:
        """Tell whether it is over."""
        return time.monotonic() >= self.at


class TimedAdapter(HTTPAdapter):
    """An adapter that hands the deadline to its connections. It repeats nothing by itself."""

    def __init__(self, deadline: Deadline, connections: int) -> None:
        """Take the deadline that all its answers obey, and how many connections are kept open."""
        self._deadline = deadline
        super().__init__(max_retries=0, pool_connections=1, pool_maxsize=connections)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:  # noqa: FBT001, FBT002 - the signature of requests
        """Make the pools, of timed connections."""
        super().init_poolmanager(connections, maxsize, block, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _timed_pools(self._deadline)


class _TimedResponse(http.client.HTTPResponse):
    """An answer read through a stream that knows the deadline."""

    def __init__(self, deadline: Deadline, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        reads = _TimedReads(deadline, self.fp.detach())
        self.fp = io.BufferedReader(cast("io.RawIOBase", reads), READ_AHEAD)


class _TimedReads:
    """A socket's raw stream, checked against the deadline before every read."""

    def __init__(self, deadline: Deadline, raw: io.RawIOBase) -> None:
        self._deadline, self._raw = deadline, raw

    def readinto(self, buffer: Any) -> int | None:
        if self._deadline.passed():
            raise TimeoutError
        return self._raw.readinto(buffer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _timed_pools(deadline: Deadline) -> dict[str, Any]:
    answer = {"response_class": staticmethod(partial(_TimedResponse, deadline))}
    plain = type("TimedHTTPConnection", (HTTPConnection,), answer)
    secure = type("TimedHTTPSConnection", (HTTPSConnection,), answer)
    return {
        "http": type("TimedHTTPPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("TimedHTTPSPool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
    }


def _hide_queries(record: logging.LogRecord) -> bool:
    """Take query strings out of what urllib3 logs: they hold keys, tokens and phone numbers."""
    if isinstance(record.args, tuple):
        record.args = tuple(arg if isinstance(arg, int | float) else _bare(arg) for arg in record.args)
        record.exc_info = None
    return True


def _bare(value: object) -> str:
    return type(value).__name__ if isinstance(value, BaseException) else _QUERY.sub("?…", str(value))


for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(_hide_queries)
