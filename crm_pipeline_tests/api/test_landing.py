"""Landing: who waits together is stored together, and nobody is answered before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from crm_pipeline.api import landing
from crm_pipeline.api.landing import MOST_WAITING, Group
from crm_pipeline.api.problems import Problem
from crm_pipeline_tests.api.conftest import Serve
from crm_pipeline_tests.api.served import Served


class Work:
    """Work that waits to be let go on, and remembers its groups."""

    def __init__(self, fault: Callable[[list[int]], None] = lambda _items: None) -> None:
        self.groups: list[list[int]] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self._fault = fault

    def __call__(self, items: list[int]) -> list[int]:
        """Double each."""
        self.groups.append(items)
        self.begun.set()
        assert self.go.wait(10)
        self._fault(items)
        return [item * 2 for item in items]


async def settled(calls: list[asyncio.Task[list[int]]]) -> list[Any]:
    """What became of each."""
    return await asyncio.gather(*calls, return_exceptions=True)


def run(play: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a play to its end."""
    return asyncio.run(asyncio.wait_for(play(), 20))


def test_who_comes_meanwhile_shares_the_next_turn() -> None:
    """One turn for the first, one for all who came while it lasted; each gets its own results."""
    work = Work()

    async def play() -> list[Any]:
        group: Group[int, int] = Group(work, "test")
        calls = [asyncio.create_task(group([0], 10))]
        await asyncio.to_thread(work.begun.wait, 10)
        calls += [asyncio.create_task(group([number, -number], 10)) for number in range(1, 11)]
        await asyncio.sleep(0)
        work.go.set()
        return await settled(calls)

    assert run(play) == [[0], *[[number * 2, number * -2] for number in range(1, 11)]]
    assert [len(group) for group in work.groups] == [1, 20]


def test_a_group_has_a_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction gets longer than it should; a large batch goes alone."""
    monkeypatch.setattr(landing, "MOST_TOGETHER", 4)
    work = Work()
    work.go.set()

    async def play() -> list[Any]:
        group: Group[int, int] = Group(work, "test")
        return await settled([asyncio.create_task(group(list(range(size)), 10)) for size in (1, 2, 9, 3, 2)])

    assert [len(results) for results in run(play)] == [1, 2, 9, 3, 2]
    assert max(len(group) for group in work.groups) == 9
    assert all(len(group) <= 4 for group in work.groups if len(group) != 9)


def test_the_fault_of_one_is_not_paid_by_the_others() -> None:
    """A group that fails for what is in it is tried one by one; only the culprit fails."""

    def fault(items: list[int]) -> None:
        if 13 in items:
            raise ZeroDivisionError

    work = Work(fault)

    async def play() -> list[Any]:
        group: Group[int, int] = Group(work, "test")
        calls = [asyncio.create_task(group([number], 10)) for number in (1, 13, 2)]
        await asyncio.sleep(0)
        work.go.set()
        return await settled(calls)

    first, culprit, last = run(play)
    assert (first, last) == ([2], [4])
    assert isinstance(culprit, ZeroDivisionError)


def test_a_database_that_is_away_fails_the_whole_group_at_once() -> None:
    """Nobody waits for a hundred attempts to fail one after the other."""

    def fault(_items: list[int]) -> None:
        raise OperationalError("", {}, Exception())

    work = Work(fault)
    work.go.set()

    async def play() -> list[Any]:
        group: Group[int, int] = Group(work, "test")
        return await settled([asyncio.create_task(group([number], 10)) for number in range(50)])

    assert {type(error) for error in run(play)} == {OperationalError}
    assert len(work.groups) <= 2


def test_too_many_waiting_are_sent_away() -> None:
    """The queue is bounded: past it, callers hear when to come again; it is free again afterwards."""
    work = Work()

    async def play() -> Problem:
        group: Group[int, int] = Group(work, "test")
        calls = [asyncio.create_task(group([0] * 500, 10)) for _ in range(MOST_WAITING // 500)]
        await asyncio.sleep(0)
        with pytest.raises(Problem) as refused:
            await group([1], 10)
        work.go.set()
        await settled(calls)
        assert await group([1], 10) == [2]
        return refused.value

    refused = run(play)
    assert refused.status == 503
    assert refused.headers["Retry-After"] == "1"


def test_a_caller_that_goes_does_not_stop_the_others() -> None:
    """What it brought is stored all the same."""
    work = Work()

    async def play() -> list[Any]:
        group: Group[int, int] = Group(work, "test")
        calls = [asyncio.create_task(group([number], 10)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        calls[1].cancel()
        work.go.set()
        return await settled(calls)

    first, gone, last = run(play)
    assert (first, last) == ([2], [6])
    assert isinstance(gone, asyncio.CancelledError)
    assert sorted(item for group in work.groups for item in group) == [1, 2, 3]


def test_one_that_cannot_be_told_keeps_it_from_nobody_else() -> None:
    """A failing answer is reported, and the others of its group are told."""
    work = Work()
    work.go.set()
    told: list[Any] = []
    reported: list[Any] = []

    def fail(_outcome: Any) -> None:
        raise ZeroDivisionError

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        group: Group[int, int] = Group(work, "test")
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        group.put([1], 10, fail)
        group.put([2], 10, done.set_result)
        told.append(await done)

    run(play)
    assert told == [[4]]
    assert isinstance(reported[0]["exception"], ZeroDivisionError)


@pytest.mark.parametrize("databases", ["sqlite", "postgresql"], indirect=True)
def test_concurrent_posts_share_commits(serve: Serve) -> None:
    """64 senders, 320 webhooks: all answered and stored, in far fewer transactions."""
    api = serve()
    commits: list[Any] = []
    sa.event.listen(api.service.engine, "commit", commits.append)

    def send(number: int) -> int:
        return api.post({"phone": f"62811100{number:04}", "name": "x"}).status_code

    with ThreadPoolExecutor(64) as senders:
        statuses = list(senders.map(send, range(320)))
    written = len(commits)
    assert statuses == [200] * 320
    assert api.rows()[0] == 320
    assert written < 200


@pytest.mark.parametrize("databases", ["sqlite", "postgresql"], indirect=True)
def test_the_same_event_from_32_senders_at_once_is_one_event(serve: Serve) -> None:
    """One row, 32 times the same answer."""
    api = serve()
    with ThreadPoolExecutor(32) as senders:
        answers = list(
            senders.map(lambda _: api.post({"phone": "628111"}, headers={"webhook-id": "evt-1"}), range(32))
        )
    assert {answer.status_code for answer in answers} == {422}
    assert len({answer.content for answer in answers}) == 1
    with ThreadPoolExecutor(32) as senders:
        answers = list(
            senders.map(
                lambda _: api.post({"phone": "62811122233"}, headers={"webhook-id": "evt-2"}), range(32)
            )
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert api.rows()[0] == 2


def test_a_database_that_is_away_is_503_until_it_is_back(api: Served) -> None:
    """A locked or lost database is no 500 and no 200; it works again without a restart."""
    down = True

    def fault(_connection: Any) -> None:
        if down:
            raise OperationalError("SELECT secret_of_a_row", {}, Exception("the disk is full"))

    sa.event.listen(api.service.engine, "begin", fault)
    for answer in (
        api.post({"phone": "628111222333"}),
        api.ask("GET", "/readyz"),
        api.ask("GET", "/api/external/status"),
    ):
        assert answer.status_code == 503
        assert answer.json()["detail"] == "The database cannot be used now."
        assert int(answer.headers["Retry-After"]) > 0
    assert api.ask("GET", "/healthz").status_code == 200
    down = False
    assert api.post({"phone": "628111222333"}).status_code == 200
    assert api.rows()[0] == 1
    assert b"secret_of_a_row" not in api.output.getvalue()
