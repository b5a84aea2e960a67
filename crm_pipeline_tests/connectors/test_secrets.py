"""Credentials go to the CRM and nowhere else: not along redirects, not into errors, not into logs."""

from __future__ import annotations

import gzip
import logging
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from crm_pipeline.connectors.base import (
    ConnectorError,
    ConnectorSetupError,
    CrmAnswerError,
)
from crm_pipeline.connectors.repeats import NotSentError
from crm_pipeline.connectors.session import problem_of
from crm_pipeline_tests.connectors.conftest import KEY, MakeSession, Serve
from crm_pipeline_tests.connectors.servers import CUT, FINE, SHORT, Seen, closed_port, drip, reply, script


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
