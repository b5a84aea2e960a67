"""The HTTP session over real sockets: it ends, repeats only what is safe, and leaks nothing."""

from __future__ import annotations

import pytest

from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import (
    CrmAnswerError,
    CrmRefusedError,
    CrmUnavailableError,
)
from crm_pipeline.connectors.repeats import LostAnswerError, NotSentError
from crm_pipeline.connectors.session import Exchange, Session, problem_of
from crm_pipeline_tests.connectors.conftest import KEY, MakeSession, Serve
from crm_pipeline_tests.connectors.servers import CUT, FINE, SHORT, closed_port, drip, reply, script


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


def test_observer_sees_each_request(serve: Serve, waits: list[float]) -> None:
    """An observer is told of every attempt, without address or content."""
    told: list[Exchange] = []
    server = serve(script(reply(500), CUT, FINE))
    crm = Session(Connection(base_url=server.url), KEY, sleep=waits.append, observe=told.append)
    crm.send("GET", server.url)
    crm.close()
    assert [(each.method, each.status) for each in told] == [("GET", 500), ("GET", None), ("GET", 200)]
    assert all(0 <= each.seconds < 5 for each in told)


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
