"""Answers that are too large, too slow, too deep in a header, or cut: all of them end."""

from __future__ import annotations

import gzip
import itertools
import time
import tracemalloc
from typing import Any

import pytest

from crm_pipeline.connectors.base import (
    CrmAnswerError,
    CrmUnavailableError,
)
from crm_pipeline.connectors.repeats import LostAnswerError
from crm_pipeline_tests.connectors.conftest import MakeSession, Serve
from crm_pipeline_tests.connectors.servers import FINE, SHORT, drip, reply, script


def test_gzip_is_understood(serve: Serve, session: MakeSession) -> None:
    """A compressed answer is asked for and unpacked."""
    server = serve(script(reply(200, gzip.compress(b'{"a":1}'), Content_Encoding="gzip")))
    assert session(server.url).send("GET", server.url).body == b'{"a":1}'
    assert server.seen[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("chunked", [False, True])
def test_gzip_bomb_is_stopped_in_bounded_memory(
    chunked: bool,  # noqa: FBT001
    serve: Serve,
    session: MakeSession,
) -> None:
    """A small answer that unpacks to a huge one stops at the cap, without being unpacked first."""
    bomb = gzip.compress(b"0" * 200_000_000, 6)
    whole = reply(200, bomb, Content_Encoding="gzip")
    if chunked:
        whole = reply(200, b"", Content_Encoding="gzip", Transfer_Encoding="chunked").replace(
            b"Content-Length: 0\r\n", b""
        )
        whole += b"%x\r\n%s\r\n0\r\n\r\n" % (len(bomb), bomb)
    server = serve(script(whole))
    crm = session(server.url, limits={"max_body_bytes": 1_000_000})
    tracemalloc.start()
    try:
        with pytest.raises(CrmAnswerError, match="larger than 1000000"):
            crm.send("GET", server.url)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert len(server.seen) == 1


def test_endless_body_is_stopped(serve: Serve, session: MakeSession) -> None:
    """An answer without an end stops at the cap."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    server = serve(lambda _seen: itertools.chain([head], itertools.repeat(b" " * 65536)))
    with pytest.raises(CrmAnswerError, match="larger"):
        session(server.url, limits={"max_body_bytes": 1_000_000}).send("GET", server.url)


@pytest.mark.parametrize(
    "header",
    [
        b"X-Large: " + b"a" * 200_000 + b"\r\n",
        b"".join(b"X-%d: %s\r\n" % (number, b"a" * 50_000) for number in range(200)),
    ],
    ids=["long", "many"],
)
def test_huge_header_is_stopped(header: bytes, serve: Serve, session: MakeSession) -> None:
    """Megabytes of header are not read."""
    server = serve(lambda _seen: [b"HTTP/1.1 200 OK\r\n" + header + b"\r\n{}"])
    with pytest.raises(CrmAnswerError, match="header"):
        session(server.url).send("GET", server.url)


@pytest.mark.parametrize(
    "whole",
    [
        FINE,
        reply(200, b" " * 5000),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 2000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 500,
    ],
    ids=["header", "body", "chunks", "continues"],
)
def test_trickle_does_not_hang(whole: bytes, serve: Serve, session: MakeSession) -> None:
    """A byte now and then keeps no request alive beyond its time."""
    skip = whole.find(b"\r\n\r\n") + 4 if whole != FINE else 0
    server = serve(lambda _seen: itertools.chain([whole[:skip]], drip(whole[skip:], 0.05)))
    began = time.monotonic()
    with pytest.raises(LostAnswerError, match="in time"):
        # On a busy machine a byte may be late; then the request would be sent again.
        session(server.url, limits={**SHORT, "read_timeout": 60.0}).send("GET", server.url)
    assert time.monotonic() - began < 1.5
    assert len(server.seen) == 1


def test_silence_times_out(serve: Serve, session: MakeSession) -> None:
    """A CRM that accepts and says nothing is left after the read timeout."""
    server = serve(lambda _seen: drip(b"x", 1.5))
    began = time.monotonic()
    with pytest.raises(LostAnswerError, match="in time"):
        session(server.url, limits={**SHORT, "retries": 0}).send("GET", server.url)
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    "raw,reason",
    [
        ([reply(200, {"records": []})[:-2]], "broke off"),
        ([reply(200, b"{}", Content_Length="10")], "broke off"),
        (reply(200, b"not gzip", Content_Encoding="gzip"), "decompressed"),
        (reply(200, b"x", Content_Encoding="br"), "not asked for"),
        (reply(200, b"x", Content_Encoding="gzip, gzip"), "not asked for"),
        ([b"SSH-2.0-OpenSSH_9\r\n"], "not HTTP"),
    ],
)
def test_broken_answer_is_an_answer_error(raw: Any, reason: str, serve: Serve, session: MakeSession) -> None:
    """An answer that is cut short, or no HTTP, is told as such."""
    server = serve(lambda _seen: raw)
    with pytest.raises(CrmAnswerError, match=reason):
        session(server.url, limits={"retries": 1}).send("GET", server.url)


def test_tls_to_a_plain_port_is_told(serve: Serve, session: MakeSession) -> None:
    """A scheme that the port does not speak says so."""
    url = serve(script(FINE), greeting=b"220 mail.example ready\r\n").url.replace("http:", "https:")
    with pytest.raises(CrmUnavailableError, match="TLS"):
        session(url, limits={"retries": 0}).send("GET", url)


@pytest.mark.parametrize("body", [b"x" * 200_000, gzip.compress(b"0" * 50_000_000)], ids=["large", "bomb"])
def test_large_error_body_does_not_hide_the_status(body: bytes, serve: Serve, session: MakeSession) -> None:
    """The status of an error is told even where its body is not read."""
    encoding = {} if body.startswith(b"x") else {"Content_Encoding": "gzip"}
    server = serve(script(reply(422, body, **encoding)))
    answer = session(server.url).send("POST", server.url, body=b"{}")
    assert (answer.status, answer.body) == (422, b"")
