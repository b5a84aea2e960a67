"""The wire: what is slow, endless or half-sent ends, and nobody else has to wait for it."""

from __future__ import annotations

import contextlib
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


JAVA = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAAB"}


@pytest.mark.parametrize("cut", [None, "head", "body"])
@pytest.mark.parametrize("offer", [JAVA, {"Connection": "upgrade", "Upgrade": "websocket"}])
def test_who_would_rather_speak_another_protocol_is_heard(
    api: Served, offer: dict[str, str], cut: str | None
) -> None:
    """Java's client offers h2c with every request; its body is a body, however the bytes come."""
    whole = webhook_head(len(BODY), **offer) + BODY
    place = {"head": whole.index(b"HTTP2" if offer is JAVA else b"websocket"), "body": len(whole) - 9}
    before, _ = api.rows()
    with api.connect() as connection:
        for part in (whole[: place[cut]], whole[place[cut] :]) if cut else (whole,):
            connection.sendall(part)
            time.sleep(0.02)  # so that it comes apart: nothing tells when it was read; either way is right
        assert read_reply(connection).status == 200
        connection.sendall(whole + whole)
        connection.shutdown(socket.SHUT_WR)
        assert re.findall(rb"HTTP/1\.1 ([0-9]+) ", ends(connection)) == [b"200", b"200"]
    assert api.rows()[0] <= before + 1  # the same content again is folded


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("apart", [True, False])
def test_no_request_is_smuggled_in_a_body(serve: Serve, method: str, *, apart: bool) -> None:
    """A body that is a request of its own, from another address, behind a head that offers an upgrade."""
    api = serve(trusted_proxies="127.0.0.1", allowed_ips="10.1.1.1")
    inner = head("GET", STATUS, {"X-Forwarded-For": "10.1.1.1"})
    offer = {"X-Forwarded-For": "6.6.6.6", "Connection": "Upgrade", "Upgrade": "x"}
    outer = head(method, "/api/external/webhook", {**offer, "Content-Length": str(len(inner))})
    with api.connect() as connection:
        connection.sendall(outer if apart else outer + inner)
        assert read_reply(connection).status == 403
        connection.sendall(inner if apart else b"")
        connection.shutdown(socket.SHUT_WR)
        assert ends(connection) == b""


def test_a_tunnel_is_refused_and_what_follows_is_not_read(api: Served) -> None:
    """Nothing behind it is ours."""
    with api.connect() as connection:
        connection.sendall(b"CONNECT other:1 HTTP/1.1\r\nHost: other\r\n\r\n" + head("GET", STATUS))
        received = ends(connection)
    assert re.findall(rb"HTTP/1\.1 ([0-9]+) ", received) == [b"405"]


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    "trailer, status",
    [("X-Forwarded-For: 10.1.1.1", 403), ("X-API-Key: evil", 403), ("Content-Type: text/plain", 403)],
)
def test_a_trailer_is_no_header(serve: Serve, trailer: str, status: int, *, apart: bool) -> None:
    """It comes behind the body, past a proxy that looks at headers: it counts for nothing."""
    api = serve(trusted_proxies="127.0.0.1", allowed_ips="10.1.1.1")
    body = b"%x\r\n%b\r\n" % (len(BODY), BODY)
    start, end = (
        webhook_head(None, **{"X-Forwarded-For": "6.6.6.6"}) + body,
        f"0\r\n{trailer}\r\n\r\n".encode(),
    )
    with api.connect() as connection:
        for part in (start, end) if apart else (start + end,):
            connection.sendall(part)
        assert read_reply(connection).status == status


def test_a_trailer_names_no_event_and_has_its_bound(api: Served) -> None:
    """Neither a name nor a key comes in by it, nor more bytes than a head may have."""
    body = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
    taken = api.raw(webhook_head(None) + body + b"webhook-id: by-trailer\r\nX-API-Key: evil\r\n\r\n")
    assert (taken.status, taken.json["eventId"] == "by-trailer") == (200, False)
    with api.connect() as connection:
        connection.sendall(webhook_head(None) + body + b"x: " + b"y" * 100_000 + b"\r\n\r\n")
        assert b" 431 " in ends(connection)
    with api.connect() as connection:
        connection.sendall(webhook_head(None) + body + b"x: ")
        with contextlib.suppress(OSError):
            for _ in range(40):
                connection.sendall(b"y" * 100_000)
        assert b" 431 " in ends(connection)


def test_a_body_in_the_smallest_pieces_is_taken(api: Served) -> None:
    """However much stands around them."""
    long = json.dumps({"secret": SECRET, **RECORD, "notes": "n" * 30_000}).encode()
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in long)
    assert api.raw(webhook_head(None), *chunks(pieces, 1000), b"0\r\n\r\n").status == 200


def chunks(whole: bytes, size: int) -> list[bytes]:
    """So many bytes each."""
    return [whole[start : start + size] for start in range(0, len(whole), size)]


@pytest.mark.parametrize("path", ["/healthz", STATUS])
def test_who_has_nothing_more_to_say_still_gets_the_answer(api: Served, path: str) -> None:
    """A client may close its half of the connection behind its request."""
    with api.connect() as connection:
        connection.sendall(head("GET", path))
        connection.shutdown(socket.SHUT_WR)
        assert ends(connection).startswith(b"HTTP/1.1 200 ")


def test_a_webhook_whose_sender_has_nothing_more_to_say_is_answered(api: Served) -> None:
    """It has landed, and its sender hears of it."""
    with api.connect() as connection:
        connection.sendall(webhook_head(len(BODY), **{"webhook-id": "half-closed"}) + BODY)
        connection.shutdown(socket.SHUT_WR)
        received = ends(connection)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b'"eventId":"half-closed"' in received


@pytest.mark.parametrize(
    "sent, status",
    [
        (b"no http at all\r\n\r\n", 400),
        (head("GET", "/" + "a" * 9000), 414),
        (head("GET", "/healthz", {"X-Long": "a" * 40_000}), 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-A: b\r\n", 408),
        (webhook_head(len(BODY)) + BODY[:-1], 408),
    ],
)
def test_what_is_refused_on_the_wire_is_logged_under_the_id_it_is_answered_with(
    quick: Served, sent: bytes, status: int
) -> None:
    """One line each, and the headers of every other answer."""
    with quick.connect() as connection:
        connection.sendall(sent)
        answer = read_reply(connection)
    assert answer.status == status
    assert {"cache-control", "content-security-policy", "referrer-policy"} <= answer.headers.keys()
    named = answer.headers["x-request-id"]
    deadline = time.monotonic() + 10
    while not (found := [line for line in quick.log if line.get("request_id") == named]):
        assert time.monotonic() < deadline
    assert [line["status"] for line in found] == [status]
    assert found[0]["caller"]
