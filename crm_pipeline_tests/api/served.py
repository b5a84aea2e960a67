"""A running API, and what tests ask it: over sockets, and its database by plain SQL."""

from __future__ import annotations

import argparse
import io
import json
import shlex
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa

from crm_pipeline.api.app import create_app
from crm_pipeline.api.limits import Limiter
from crm_pipeline.api.logs import Log
from crm_pipeline.api.protocol import Bounds
from crm_pipeline.api.server import listen, server, url_of
from crm_pipeline.api.whole import Whole
from crm_pipeline.service import ExternalCrmService
from crm_pipeline.settings import load_settings
from crm_pipeline.store.engine import writing
from crm_pipeline_tests.project import pages

PAGES_URL = "http://127.0.0.1:8080"
PAGES_KEY, PAGES_SECRET = "a-long-random-key", "another-long-random-text"
"""What the documentation calls them."""
KEY = "key-of-the-tests"
OLD_KEY = "key-from-before"
SECRET = "secret-of-the-tests"
OLD_SECRET = "secret-from-before"
PHONE = "6281234567890@c.us"
RECORD = {"phone": PHONE, "name": "Budi", "ticket_price": 150000}
WEBHOOK = "/api/external/webhook"
JSON = {"Content-Type": "application/json"}
PATIENCE = 10.0
"""Seconds after which something is taken to hang."""
SETTINGS: dict[str, Any] = {
    "external_crm_enabled": True,
    "external_crm_api_url": "http://127.0.0.1:9/contacts",
    "external_crm_api_key": "key-of-the-crm",
    "external_crm_webhook_secret": f"{SECRET},{OLD_SECRET}",
    "crm_api_key": f"{KEY},{OLD_KEY}",
    "rate_limit": 1_000_000,
}


@dataclass
class Reply:
    """An answer as it came over a raw socket."""

    status: int
    headers: dict[str, str]
    body: bytes
    rest: bytes = b""
    """What came after it."""

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


@dataclass
class Served:
    """One running API."""

    url: str
    service: ExternalCrmService
    output: io.BytesIO
    whole: dict[tuple[str, str], Whole]
    """Its shorter ways; a test may take them away."""
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rsplit(":", 1)[1])

    @property
    def log(self) -> list[dict[str, Any]]:
        """Its log so far; a line that is no JSON fails the test."""
        return [json.loads(line) for line in self.output.getvalue().splitlines()]

    def ask(self, method: str, path: str, *, key: str | None = KEY, **request: Any) -> requests.Response:
        """Send a request with a key."""
        headers = {**({"X-API-Key": key} if key is not None else {}), **request.pop("headers", {})}
        return self.session.request(method, self.url + path, headers=headers, timeout=PATIENCE, **request)

    def post(self, payload: Any = None, *, secret: Any = SECRET, **request: Any) -> requests.Response:
        """Send a webhook: the payload as JSON, with a secret unless that is None."""
        if isinstance(payload, dict) and secret is not None:
            payload = {"secret": secret, **payload}
        return self.post_bytes(json.dumps(payload).encode(), **request)

    def post_bytes(self, body: bytes, **request: Any) -> requests.Response:
        """Send a webhook's body as it is."""
        headers = {**JSON, **request.pop("headers", {})}
        return self.ask("POST", WEBHOOK, data=body, headers=headers, **request)

    def sql(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Ask or change the database, as another program would."""
        with writing(self.service.engine) as tx:
            done = tx.execute(sa.text(statement), values)
            return [tuple(row) for row in done] if done.returns_rows else []

    def rows(self) -> tuple[int, int]:
        """How many events have landed, and how many contacts there are."""
        return (
            self.sql("SELECT count(*) FROM webhook_events")[0][0],
            self.sql("SELECT count(*) FROM contacts")[0][0],
        )

    def connect(self) -> socket.socket:
        """Open a raw connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def raw(self, *parts: bytes) -> Reply:
        """Send bytes and read the answer until the other end closes, or the answer is whole."""
        with self.connect() as connection:
            try:
                for part in parts:
                    connection.sendall(part)
            except OSError:
                pass  # closed before all was sent: the answer says why
            return read_reply(connection)


def head(method: str, path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """A request's head with the key."""
    lines = {"Host": "x", "X-API-Key": KEY, **(headers or {})}
    return "".join(
        [f"{method} {path} HTTP/1.1\r\n", *(f"{a}: {b}\r\n" for a, b in lines.items()), "\r\n"]
    ).encode("latin-1")


def webhook_head(length: int | None, **headers: str) -> bytes:
    """A webhook's head; without a length for a chunked one."""
    more = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    return head("POST", WEBHOOK, {**JSON, **more, **headers})


def read_reply(connection: socket.socket) -> Reply:
    """Read one answer."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _receive(connection)
    top, _, body = received.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        body += _receive(connection)
    return Reply(int(first.split()[1]), headers, body[:length], body[length:])


def _receive(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    assert received, "the connection ended before the answer did"
    return received


def curl_lines(page: Path, part: str) -> list[str]:
    """Lines of a page that call our API, with this in their address."""
    lines = [line for block in pages.blocks(page, "sh") for line in block.text.splitlines()]
    return [line for line in lines if line.startswith("curl") and PAGES_URL in line and part in line]


def curl(line: str, api: Served) -> requests.Response:
    """Do what a curl line of a page does, here, with the key and the secret of the tests."""
    line = line.replace(PAGES_URL, api.url).replace(PAGES_KEY, KEY).replace(PAGES_SECRET, SECRET)
    reader = argparse.ArgumentParser()
    reader.add_argument("url")
    reader.add_argument("-X", dest="method", default="GET")
    reader.add_argument("-H", dest="headers", action="append", default=[])
    reader.add_argument("-d", dest="data")
    said = reader.parse_args(shlex.split(line)[1:])
    headers = dict(header.split(": ", 1) for header in said.headers)
    return api.session.request(said.method, said.url, headers=headers, data=said.data, timeout=PATIENCE)


@contextmanager
def serving(
    *,
    limiter: Limiter | None = None,
    bounds: Bounds | None = None,
    kind: type[ExternalCrmService] = ExternalCrmService,
    ending: list[threading.Thread] | None = None,
    **settings: Any,
) -> Iterator[Served]:
    """Serve the API from a thread; a setting that is None is one that is not set.

    An orderly end takes uvicorn a fifth of a second: with a list for ``ending`` threads, who
    holds it waits for all of them together.
    """
    output = io.BytesIO()
    said = {name: value for name, value in {**SETTINGS, **settings}.items() if value is not None}
    with kind(settings=load_settings(**said)) as service:
        ready = threading.Event()
        app = create_app(service, Log(output), limiter=limiter)
        whole = dict(app.whole)
        running = server(app, ready.set, bounds=bounds, whole=whole, notes=[app.refused])
        with listen("127.0.0.1", 0) as listener:
            thread = threading.Thread(
                target=running.run, kwargs={"sockets": [listener]}, name="api", daemon=True
            )
            thread.start()
            assert ready.wait(PATIENCE), "the API did not start"
            served = Served(url_of(listener), service, output, whole)
            served.session.trust_env = False
            try:
                yield served
            finally:
                served.session.close()
                running.should_exit = True
                if ending is None:
                    must_end(thread)
                else:
                    ending.append(thread)


def must_end(thread: threading.Thread) -> None:
    """Wait until an API has ended."""
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the API did not end"


def eventually(condition: Any, seconds: float = PATIENCE) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)
