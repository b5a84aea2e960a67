"""The HTTP session over real sockets: it ends, repeats only what is safe, and leaks nothing."""

from __future__ import annotations

import gzip
import itertools
import logging
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import (
    ConnectorError,
    ConnectorSetupError,
    CrmAnswerError,
    CrmRefusedError,
    CrmUnavailableError,
)
from crm_pipeline.connectors.repeats import LostAnswerError, NotSentError
from crm_pipeline.connectors.session import Exchange, Session, problem_of
from crm_pipeline_tests.connectors.conftest import KEY, MakeSession, Serve
from crm_pipeline_tests.connectors.servers import CUT, Seen, closed_port, reply, script

FINE = reply(200, {"ok": True})
SHORT = {"connect_timeout": 0.3, "read_timeout": 0.3, "total_timeout": 0.6}


def drip(whole: bytes, pause: float) -> Iterator[bytes]:
    """Give an answer byte by byte."""
    for position in range(len(whole)):
        time.sleep(pause)
        yield whole[position : position + 1]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_get_is_repeated_after_passing_errors(
    status: int, serve: Serve, session: MakeSession, waits: list[float]
) -> None:
    """A GET that meets a passing error is asked again, and its later answer counts."""
    server = serve(script(reply(status), reply(status), FINE))
    crm = session(server.url)
    assert crm.send("GET", server.url).status == 200
    assert (len(server.seen), crm.calls, len(waits)) == (3, 3, 2)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 501])
def test_get_is_not_repeated_after_lasting_errors(status: int, serve: Serve, session: MakeSession) -> None:
    """What would be answered the same again is not asked again."""
    server = serve(script(reply(status), FINE))
    assert session(server.url).send("GET", server.url).status == status
    assert len(server.seen) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "first,sent",
    [
        (reply(429), 2),
        (reply(503, Retry_After="1"), 2),
        (reply(503), 1),
        (reply(500), 1),
        (reply(502), 1),
        (reply(504), 1),
    ],
)
def test_write_is_repeated_only_when_surely_not_applied(
    method: str, first: bytes, sent: int, serve: Serve, session: MakeSession
) -> None:
    """A write goes out again only after an answer that proves the CRM did nothing."""
    server = serve(script(first, FINE))
    session(server.url).send(method, server.url, body=b"{}")
    assert len(server.seen) == sent


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_cut_write_goes_out_once(method: str, serve: Serve, session: MakeSession) -> None:
    """A write whose answer is lost may have been applied: it is never sent twice."""
    server = serve(script(CUT, FINE))
    with pytest.raises(LostAnswerError):
        session(server.url).send(method, server.url, body=b"{}")
    assert len(server.seen) == 1


def test_write_without_answer_goes_out_once(serve: Serve, session: MakeSession) -> None:
    """A write that times out is not sent twice either."""
    server = serve(lambda _seen: drip(FINE, 0.2))
    with pytest.raises(LostAnswerError, match="in time"):
        session(server.url, limits=SHORT).send("POST", server.url, body=b"{}")
    assert len(server.seen) == 1


def test_cut_get_is_repeated(serve: Serve, session: MakeSession) -> None:
    """Cut before or inside the answer: a GET is asked again."""
    half = [reply(200, {"a": 1})[:-3]]
    server = serve(script(CUT, half, FINE))
    crm = session(server.url)
    assert crm.send("GET", server.url).body == b'{"ok": true}'
    assert crm.calls == 3


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_refused_connection_is_repeated_and_then_told(
    method: str, session: MakeSession, waits: list[float]
) -> None:
    """Without a connection nothing was sent: every method is tried again, so often as allowed."""
    url = f"http://127.0.0.1:{closed_port()}"
    crm = session(url, limits={"retries": 2})
    with pytest.raises(NotSentError, match="cannot be reached"):
        crm.send(method, url)
    assert (len(waits), crm.calls) == (2, 0)


def test_waits_grow_and_are_jittered(serve: Serve, waits: list[float]) -> None:
    """Waits double from the second on; chance adds up to half a second to each."""
    server = serve(script(reply(500)))
    crm = Session(Connection(base_url=server.url), KEY, sleep=waits.append, chance=lambda: 1.0)
    assert crm.send("GET", server.url).status == 500
    crm.close()
    assert waits == [0.5, 1.5, 2.5, 4.5]


@pytest.mark.parametrize(
    "asked,wait",
    [
        ("7", 7.0),
        ("0", 0.0),
        ("-1", 0.0),
        ("9999999999", 60.0),
        ("9" * 5000, 60.0),
        ("NaN", 1.0),
        ("inf", 1.0),
        ("soon", 1.0),
        ("", 1.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 9999 07:28:00 GMT", 60.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
    ],
)
def test_retry_after_is_obeyed_within_bounds(
    asked: str, wait: float, serve: Serve, session: MakeSession, waits: list[float]
) -> None:
    """Whatever Retry-After says, the wait lies between nothing and the configured most."""
    server = serve(script(reply(429, Retry_After=asked), FINE))
    assert session(server.url).send("POST", server.url).status == 200
    assert waits == [wait]


def test_endless_429_ends(serve: Serve, session: MakeSession, waits: list[float]) -> None:
    """After the allowed attempts the last answer is given back."""
    server = serve(script(reply(429, Retry_After="9999999999")))
    answer = session(server.url).send("GET", server.url)
    assert isinstance(problem_of(answer), CrmUnavailableError)
    assert waits == [60.0, 60.0, 60.0, 60.0]
    assert len(server.seen) == 5


def test_no_wait_beyond_the_time_of_the_call(serve: Serve, session: MakeSession, waits: list[float]) -> None:
    """A wait that would outlast the call's time is not begun."""
    server = serve(script(reply(429, Retry_After="30")))
    assert session(server.url, limits={"total_timeout": 20}).send("GET", server.url).status == 429
    assert waits == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_redirect_is_not_followed(status: int, method: str, serve: Serve, session: MakeSession) -> None:
    """The host a redirect names sees nothing, and the error names only the status."""
    foreign = serve(script(FINE))
    server = serve(script(reply(status, Location=f"{foreign.url}/steal?token=t0ken")))
    problem = problem_of(session(server.url).send(method, server.url))
    assert isinstance(problem, CrmAnswerError)
    assert str(status) in str(problem)
    assert "t0ken" not in str(problem)
    assert foreign.seen == []
    assert len(server.seen) == 1


def test_redirect_bomb_is_not_unpacked(serve: Serve, session: MakeSession) -> None:
    """The body of a redirect is bounded like every other."""
    bomb = gzip.compress(b"0" * 50_000_000)
    server = serve(script(reply(302, bomb, Location="/x", Content_Encoding="gzip")))
    tracemalloc.start()
    try:
        assert session(server.url).send("GET", server.url).body == b""
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "elsewhere",
    [
        "http://localhost:{port}/x",
        "https://127.0.0.1:{port}/x",
        "http://127.0.0.1:{other}/x",
        "http://127.0.0.1:{port}@127.0.0.1:{other}/x",
        "http://user@127.0.0.1:{port}/x",
        "http://127.0.0.1:{port}\\@127.0.0.1:{other}/x",
        "ftp://127.0.0.1:{port}/x",
        "http://127.0.0.1:99999/x",
        "/relative",
    ],
)
def test_credentials_stay_with_the_origin(elsewhere: str, serve: Serve, session: MakeSession) -> None:
    """A URL of another scheme, host, port or with a user name is refused before anything is sent."""
    server, other = serve(script(FINE)), serve(script(FINE))
    port, other_port = server.url.rpartition(":")[2], other.url.rpartition(":")[2]
    crm = session(server.url)
    with pytest.raises(ConnectorError, match=r"origin|cannot be built"):
        crm.send("GET", elsewhere.format(port=port, other=other_port))
    assert (server.connections, other.connections, crm.calls) == (0, 0, 0)


def test_environment_changes_nothing(
    serve: Serve, session: MakeSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Neither proxy variables nor a .netrc are used: the key goes to the CRM and nothing else does."""
    proxy = serve(script(FINE))
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login mallory password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    server = serve(script(FINE))
    session(server.url).send("GET", server.url)
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    session(server.url, None, auth={"kind": "none"}).send("GET", server.url)
    assert "authorization" not in server.seen[1].headers
    assert proxy.seen == []


def test_cookies_are_not_kept(serve: Serve, session: MakeSession) -> None:
    """A CRM cannot make requests grow, or tie them together, with cookies."""
    server = serve(script(reply(200, {}, Set_Cookie="a=b; Path=/")))
    crm = session(server.url)
    crm.send("GET", server.url)
    crm.send("GET", server.url)
    assert "cookie" not in server.seen[1].headers


def test_connection_is_reused(serve: Serve, session: MakeSession) -> None:
    """Many requests go over one connection."""
    server = serve(script(FINE))
    crm = session(server.url)
    for _ in range(5):
        crm.send("GET", server.url)
    assert server.connections == 1


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
        session(server.url, limits=SHORT).send("GET", server.url)
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


def test_observer_sees_each_request(serve: Serve, waits: list[float]) -> None:
    """An observer is told of every attempt, without address or content."""
    told: list[Exchange] = []
    server = serve(script(reply(500), CUT, FINE))
    crm = Session(Connection(base_url=server.url), KEY, sleep=waits.append, observe=told.append)
    crm.send("GET", server.url)
    crm.close()
    assert [(each.method, each.status) for each in told] == [("GET", 500), ("GET", None), ("GET", 200)]
    assert all(0 <= each.seconds < 5 for each in told)


def _leaks(error: BaseException | None) -> str:
    """Everything a log could show of an error, its causes included, even suppressed ones."""
    if error is None:
        return ""
    return f"{error} {error.args!r}" + _leaks(error.__cause__) + _leaks(error.__context__)


@pytest.mark.parametrize(
    "answer",
    [
        lambda _seen: CUT,
        lambda _seen: [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"],
        lambda _seen: [b"HTTP/1.1 200 OK\r\nX: " + b"b0dy" * 100_000],
        script(reply(200, b"b0dy", Content_Encoding="gzip")),
        script(reply(200, b"b0dy" * 1000)),
        lambda _seen: drip(b"x", 0.6),
    ],
    ids=["cut", "short", "header", "gzip", "large", "silent"],
)
@pytest.mark.parametrize("auth", [{"kind": "query", "param": "key"}, {"kind": "bearer"}])
def test_errors_and_logs_hold_no_secret(
    answer: Callable[[Seen], Any],
    auth: dict[str, str],
    serve: Serve,
    session: MakeSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither key nor query nor body comes out, in an error's text, its causes or a log."""
    caplog.set_level(logging.DEBUG)
    server = serve(answer)
    crm = session(server.url, auth=auth, limits={**SHORT, "max_body_bytes": 1024, "retries": 1})
    with pytest.raises(ConnectorError) as caught:
        crm.send("GET", f"{server.url}/x?phone=628111", params={"name": "budi"})
    text = _leaks(caught.value) + caplog.text + str([record.args for record in caplog.records])
    for secret in (KEY, "628111", "budi", "b0dy", "phone="):
        assert secret not in text


def test_unreachable_host_leaks_nothing(session: MakeSession) -> None:
    """The URL with its query is not in the error of a refused connection."""
    url = f"http://127.0.0.1:{closed_port()}"
    crm = session(url, auth={"kind": "query", "param": "key"}, limits={"retries": 0})
    with pytest.raises(NotSentError) as caught:
        crm.send("GET", url, params={"phone": "628111"})
    assert KEY not in _leaks(caught.value)
    assert "628111" not in _leaks(caught.value)


def test_request_that_cannot_be_built_leaks_nothing(serve: Serve, session: MakeSession) -> None:
    """A header value that cannot be sent is not repeated in the error."""
    server = serve(script(FINE))
    with pytest.raises(ConnectorSetupError) as caught:
        session(server.url).send("POST", server.url, headers={"Idempotency-Key": "s3cret\n"})
    assert "s3cret" not in _leaks(caught.value)
    assert server.seen == []


@pytest.mark.parametrize(
    "status,kind",
    [
        (200, type(None)),
        (204, type(None)),
        (302, CrmAnswerError),
        (401, CrmRefusedError),
        (403, CrmRefusedError),
        (400, CrmRefusedError),
        (404, CrmRefusedError),
        (429, CrmUnavailableError),
        (500, CrmUnavailableError),
        (503, CrmUnavailableError),
    ],
)
def test_statuses_mean_what_they_mean(
    status: int, kind: type[object], serve: Serve, session: MakeSession
) -> None:
    """Success is none, refusals are lasting, throttling and server errors pass."""
    server = serve(script(reply(status)))
    problem = problem_of(session(server.url, limits={"retries": 0}).send("GET", server.url))
    assert isinstance(problem, kind)
