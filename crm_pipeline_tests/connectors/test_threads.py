"""A session that several threads send with: each gets its own answer, and all keep to what the CRM asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from crm_pipeline.connection import Budget, Connection
from crm_pipeline.connectors.repeats import LostAnswerError, NotSentError
from crm_pipeline.connectors.session import Exchange, Session, Shared
from crm_pipeline.sync.budget import SharedBudget
from crm_pipeline.sync.calls import CallFigures
from crm_pipeline.sync.flights import Flights
from crm_pipeline_tests.connectors.conftest import KEY, Connect, MakeSession, Serve
from crm_pipeline_tests.connectors.servers import FINE, SHORT, Seen, drip, reply, script

THREADS = 6


def in_threads(work: Callable[[int], Any], times: int, threads: int = THREADS) -> Sequence[Any]:
    """Do it so many times, several at once; what came of each."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, range(times)))


def test_each_thread_gets_its_own_answer(serve: Serve) -> None:
    """Answers, figures and connections add up, and no cookie of one goes out with another."""
    figures, meeting = CallFigures(), threading.Barrier(THREADS)

    def answer(seen: Seen) -> bytes:
        meeting.wait(10)  # so many are under way at once, or none is answered
        return reply(200, {"told": seen.query["n"]}, Set_Cookie=f"n={seen.query['n']}; Path=/")

    server = serve(answer)
    connection = Connection.model_validate({"base_url": server.url, "limits": {"in_flight": THREADS}})
    crm = Session(connection, KEY, observe=figures.note)
    told = in_threads(
        lambda n: crm.send("POST", server.url, params={"n": str(n)}, body=b"{}").body, 10 * THREADS
    )
    crm.close()
    assert told == [f'{{"told": "{n}"}}'.encode() for n in range(10 * THREADS)]
    assert (crm.calls, len(server.seen), server.connections) == (60, 60, THREADS)
    assert (taken := figures.take())["calls"] == taken["calls_2xx"] == 60
    assert all("cookie" not in seen.headers for seen in server.seen)


def test_a_slow_answer_ends_its_own_call_only(serve: Serve, session: MakeSession) -> None:
    """The time of a call is that of its thread."""
    server = serve(lambda seen: drip(FINE, 0.2) if seen.query["n"] == "0" else FINE)
    crm = session(server.url, limits=SHORT)

    def send(n: int) -> object:
        try:
            return crm.send("POST", server.url, params={"n": str(n)}, body=b"{}").status
        except LostAnswerError as error:
            return type(error).__name__

    assert in_threads(send, THREADS) == ["LostAnswerError", *[200] * (THREADS - 1)]


def test_one_new_token_for_all_whose_token_was_refused(serve: Serve, connector: Connect) -> None:
    """The first that is refused asks for a new token; the others use it."""
    meeting, tokens = threading.Barrier(THREADS), iter(("old", "new"))

    def answer(seen: Seen) -> bytes:
        if seen.path == "/token":
            return reply(200, {"access_token": next(tokens), "token_type": "Bearer"})
        if seen.headers["authorization"] == "Bearer old":
            meeting.wait(10)
            return reply(401)
        return reply(200, {"id": seen.path[1:]})

    server = serve(answer)
    grant = {"grant": "client_credentials", "client_id": "app", "client_secret": "s3cret"}
    auth = {"kind": "oauth2", "oauth": {**grant, "token_url": f"{server.url}/token"}}
    made = connector(server.url, auth=auth)
    records = in_threads(lambda n: made.read([str(n)])[0].external_id, THREADS)
    assert records == [str(n) for n in range(THREADS)]
    assert [seen.path for seen in server.seen].count("/token") == 2


def test_a_wait_that_one_was_asked_for_is_kept_by_all(serve: Serve) -> None:
    """While one thread waits as ``Retry-After`` says, another that has something to send waits, too."""
    waits: list[tuple[str, float]] = []
    server = serve(script(reply(429, Retry_After="7"), FINE))

    def sleep(seconds: float) -> None:
        waits.append((threading.current_thread().name, seconds))
        if len(waits) == 1:
            other = threading.Thread(target=send, name="other")
            other.start()
            other.join()

    def send() -> None:
        assert crm.send("POST", server.url, body=b"{}").status == 200

    crm = Session(Connection(base_url=server.url), KEY, sleep=sleep, chance=lambda: 0.0)
    send()
    assert waits[0] == (threading.current_thread().name, 7.0)
    assert waits[1][0] == "other"
    assert 0 < waits[1][1] <= 7
    send()
    crm.close()
    assert len(waits) == 2  # the pause is over


def test_nothing_is_sent_once_the_session_is_closed(serve: Serve) -> None:
    """Not even the repeat of a request whose thread was waiting at that time."""
    server, told = serve(script(reply(429, Retry_After="7"), FINE)), list[Exchange]()
    crm: Session = Session(
        Connection(base_url=server.url), KEY, sleep=lambda _seconds: crm.close(), observe=told.append
    )
    with pytest.raises(NotSentError, match="ended"):
        crm.send("POST", server.url, body=b"{}")
    with pytest.raises(NotSentError, match="ended"):
        crm.send("GET", server.url)
    assert len(server.seen) == len(told) == crm.calls == 1


def test_threads_keep_to_one_budget(engine: Engine, serve: Serve) -> None:
    """The call that is one too many waits, whichever thread makes it."""
    slept, lock = list[float](), threading.Lock()
    now = 1_800_000_000.0

    def sleep(seconds: float) -> None:
        nonlocal now
        with lock:
            slept.append(seconds)
            now += seconds

    server = serve(script(FINE))
    bounds = Budget(calls=10, window_seconds=10, reserve=0.0)
    budget = SharedBudget(engine, "default", bounds, now=lambda: now, sleep=sleep)
    crm = Session(Connection(base_url=server.url), KEY, shared=Shared(budget=budget))
    in_threads(lambda _n: crm.send("GET", server.url), 10)
    assert (slept, budget.spent().today) == ([], 10)
    in_threads(lambda _n: crm.send("GET", server.url), 2)
    crm.close()
    assert budget.spent().today == len(server.seen) == 12
    assert slept


def test_nothing_is_sent_for_work_that_was_given_up(serve: Serve) -> None:
    """A call that waits to be repeated when its work ends is not repeated."""
    server = serve(script(reply(429, Retry_After="7"), FINE))
    waiting, go_on = threading.Event(), threading.Event()

    def sleep(_seconds: float) -> None:
        waiting.set()
        go_on.wait(10)

    crm = Session(Connection(base_url=server.url), KEY, sleep=sleep)
    flights: Flights[str, object] = Flights(2)
    with flights:
        flights.start("a write", lambda: crm.send("POST", server.url, body=b"{}"))
        assert waiting.wait(10)
    go_on.set()
    ((what, came),) = flights.landed(wait=True)
    crm.close()
    assert what == "a write"
    assert isinstance(came, NotSentError)
    assert len(server.seen) == 1
