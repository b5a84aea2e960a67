"""The wire: what is slow, endless or half-sent ends, and nobody else has to wait for it."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from crm_pipeline.api.protocol import Bounds
from crm_pipeline_tests.api.conftest import Serve
from crm_pipeline_tests.api.served import (
    RECORD,
    SECRET,
    Served,
    head,
    read_reply,
    serving,
    webhook_head,
)
from crm_pipeline_tests.databases import SqliteDatabases

STATUS = "/api/external/status"
BODY = json.dumps({"secret": SECRET, **RECORD}).encode()
QUICK = Bounds(head_seconds=0.3, body_seconds=0.4, linger_seconds=0.3)


@pytest.fixture(scope="module")
def quick(sqlite_databases: SqliteDatabases) -> Iterator[Served]:
    """An API with little patience."""
    with sqlite_databases.fresh() as url, serving(bounds=QUICK, database_url=url) as served:
        yield served


def ends(connection: socket.socket) -> bytes:
    """Everything until the other end closes."""
    received = b""
    while True:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            return received
        if not part:
            return received
        received += part


@pytest.mark.parametrize(
    "sent, expected",
    [
        (b"", b""),
        (b"GET ", b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\nHost: x\r\nX-A: b\r\n", b"HTTP/1.1 408 "),
        (b"\r\n", b""),
        (webhook_head(len(BODY)), b"HTTP/1.1 408 "),
        (webhook_head(len(BODY)) + BODY[:-1], b"HTTP/1.1 408 "),
        (webhook_head(None) + b'5\r\n{"a":\r\n', b"HTTP/1.1 408 "),
    ],
)
def test_what_does_not_come_in_time_ends(quick: Served, sent: bytes, expected: bytes) -> None:
    """Nothing, half a head, half a body: refused after a while, the connection is closed, nothing landed."""
    before = quick.rows()
    with quick.connect() as connection:
        connection.sendall(sent)
        assert ends(connection).startswith(expected)
    assert quick.rows() == before
    assert quick.post(RECORD).status_code == 200


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nX-Long: ", webhook_head(1000), b""])
def test_a_drip_does_not_keep_a_connection_open(quick: Served, start: bytes) -> None:
    """A byte now and then is no progress: the time is for the whole of it."""
    began = time.monotonic()
    with quick.connect() as connection:
        connection.sendall(start)
        connection.settimeout(0.05)
        while time.monotonic() < began + 5:
            try:
                connection.sendall(b"\r\n" if not start else b"x")
                if not connection.recv(65536):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    assert time.monotonic() - began < 3


def test_an_idle_connection_is_closed_but_a_slow_answer_is_not(quick: Served) -> None:
    """Time that we take ourselves is not the caller's."""
    api = quick
    with api.service._leased("a pull"), api.connect() as connection:  # noqa: SLF001 - another worker, for a while
        connection.sendall(head("POST", "/api/external/push/628999999999", {"Content-Length": "0"}))
        connection.settimeout(1.0)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    with api.connect() as connection:
        connection.sendall(head("GET", "/healthz"))
        assert read_reply(connection).status == 200


def test_many_half_open_connections_do_not_stop_the_others(serve: Serve) -> None:
    """Hundreds of stuck senders: a normal one is served at once."""
    api = serve(bounds=replace(QUICK, head_seconds=5, body_seconds=5))
    stuck = [api.connect() for _ in range(300)]
    try:
        for number, connection in enumerate(stuck):
            connection.sendall(webhook_head(1000) if number % 2 else b"POST / HTTP/1.1\r\nX-A")
        began = time.monotonic()
        assert api.post(RECORD).status_code == 200
        assert time.monotonic() - began < 2
    finally:
        for connection in stuck:
            connection.close()


def test_one_address_leaves_room_for_others(serve: Serve) -> None:
    """It holds its share half open, and is told so; another address is let in at once."""
    api = serve(bounds=replace(QUICK, head_seconds=30, connections=8, share=0.5))
    held = [api.connect() for _ in range(4)]
    try:
        for connection in held:
            connection.sendall(b"GET")
        assert api.raw(b"").status == 503
        with socket.create_connection(("127.0.0.1", api.port), 5, ("127.0.0.2", 0)) as other:
            other.sendall(head("GET", "/healthz"))
            assert read_reply(other).status == 200
    finally:
        for connection in held:
            connection.close()


def test_connections_are_bounded(serve: Serve) -> None:
    """Past the bound, a new connection hears so and is closed; places are given back."""
    api = serve(bounds=replace(QUICK, head_seconds=30, connections=3, share=1.0))
    held = [api.connect() for _ in range(3)]
    for connection in held:
        connection.sendall(b"GET")
    refused = api.raw(b"")
    assert refused.status == 503
    assert refused.json["success"] is False
    for connection in held:
        connection.close()
    deadline = time.monotonic() + 5
    while api.raw(head("GET", "/healthz")).status != 200:
        assert time.monotonic() < deadline


def test_a_long_body_is_not_taken_in(api: Served) -> None:
    """Past the bound the answer comes while the other end still sends, and the rest is not kept."""
    with api.connect() as connection:
        connection.sendall(webhook_head(None))
        sent = 0
        connection.settimeout(0.01)
        piece = b"%x\r\n" % 65536 + b" " * 65536 + b"\r\n"
        while sent < 200 * 65536:
            try:
                connection.sendall(piece)
                sent += 65536
            except TimeoutError:
                continue
            except OSError:
                break
            try:
                if connection.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                continue
        connection.settimeout(10)
        answer = read_reply(connection)
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert sent < 40 * 65536


def test_requests_one_after_the_other_on_one_connection(api: Served) -> None:
    """A refused one does not end a connection that is sound."""
    with api.connect() as connection:
        for expected in (404, 200, 401, 415, 200):
            request = {
                404: head("GET", "/nowhere"),
                200: webhook_head(len(BODY)) + BODY,
                401: head("GET", STATUS, {"X-API-Key": "wrong"}),
                415: head("POST", "/api/external/webhook", {"Content-Length": str(len(BODY))}) + BODY,
            }[expected]
            connection.sendall(request)
            assert read_reply(connection).status == expected


def test_requests_sent_at_once_are_answered_in_order(api: Served) -> None:
    """Pipelined: each gets its answer, the last one's garbage ends the connection."""
    with api.connect() as connection:
        connection.sendall(
            head("GET", "/nowhere") + head("GET", STATUS) + webhook_head(len(BODY)) + BODY + b"\x00\x01\r\n"
        )
        received = ends(connection)
    assert re.findall(rb"HTTP/1\.1 ([0-9]+) ", received) == [b"404", b"200", b"200"]


def test_a_sender_that_waits_for_leave_gets_it_after_its_key_is_seen(api: Served) -> None:
    """``Expect: 100-continue``: a wrong key is refused before the body is sent."""
    with api.connect() as connection:
        connection.sendall(webhook_head(len(BODY), Expect="100-continue"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(BODY)
        assert read_reply(connection).status == 200
    with api.connect() as connection:
        connection.sendall(webhook_head(len(BODY), Expect="100-continue", **{"X-API-Key": "wrong"}))
        assert read_reply(connection).status == 401


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_no_other_protocol_is_spoken(api: Served, upgrade: str) -> None:
    """An offer to change the protocol is passed over."""
    offer = {"Connection": "Upgrade", "Upgrade": upgrade, "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA"}
    assert api.raw(head("GET", "/healthz", offer)).status == 200
