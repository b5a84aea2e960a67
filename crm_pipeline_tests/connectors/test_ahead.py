"""Reading ahead: the next page is asked for while one is worked on, and nothing else changes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from crm_pipeline.connectors.base import CrmRefusedError, CrmUnavailableError, Window
from crm_pipeline_tests.connectors.conftest import Connect, Serve
from crm_pipeline_tests.connectors.servers import CUT, Reply, Seen, reply

ALL = Window()
_PATIENCE = 20.0


def _page(seen: Seen, last: int) -> bytes:
    number = int(seen.query.get("cursor", "1"))
    return reply(200, {"records": [{"id": number}], "next_cursor": number + 1 if number < last else None})


def test_one_page_begins_no_thread(serve: Serve, connector: Connect) -> None:
    """What most polls are costs one call and no thread; nor does a look at the first page of more."""
    server = serve(lambda seen: _page(seen, 1))
    assert len(list(connector(server.url).pages(ALL))) == 1
    more = serve(lambda seen: _page(seen, 9))
    next(connector(more.url).pages(ALL))
    assert (len(server.seen), len(more.seen)) == (1, 1)


@pytest.mark.parametrize("on_a_page, ahead", [(1, 10), (300, 3), (999, 1), (1000, 1), (2000, 1)])
def test_the_next_pages_are_asked_for_while_one_is_worked_on(
    on_a_page: int, ahead: int, serve: Serve, connector: Connect
) -> None:
    """From the second page on, and never more ahead than are worth a transaction, nor more than ten."""
    asked, last = threading.Semaphore(0), 16

    def answer(seen: Seen) -> Reply:
        asked.release()
        number = int(seen.query.get("cursor", "1"))
        records = [{"id": f"{number}-{each}"} for each in range(on_a_page)]
        return reply(200, {"records": records, "next_cursor": number + 1 if number < last else None})

    server, known, read = serve(answer), 0, 0
    for page in connector(server.url).pages(ALL):
        read += 1
        assert [record.external_id for record in page.records] == [
            f"{read}-{each}" for each in range(on_a_page)
        ]
        expected = 1 if read == 1 else min(read + ahead, last)  # the pages so far, and those behind them
        while known < expected:
            assert asked.acquire(timeout=_PATIENCE)
            known += 1
        assert len(server.seen) == expected
    assert read == last


def test_a_page_says_whether_the_next_one_has_come(serve: Serve, connector: Connect) -> None:
    """Not of one that is still under way, nor of one that has failed."""
    may, come = threading.Semaphore(0), threading.Semaphore(0)

    def answer(seen: Seen) -> Reply:
        number = int(seen.query.get("cursor", "1"))
        if number == 3:
            may.acquire(timeout=_PATIENCE)
        if number == 6:
            come.release()
            return CUT
        return _page(seen, 9)

    pages = connector(serve(answer).url, limits={"retries": 0}).pages(ALL)
    assert [next(pages).followed, next(pages).followed] == [False, False]
    may.release()
    assert come.acquire(timeout=_PATIENCE)
    assert [next(pages).followed for _ in range(3)] == [True, True, False]
    with pytest.raises(CrmUnavailableError):
        next(pages)


def test_who_stops_early_leaves_no_thread(serve: Serve, connector: Connect) -> None:
    """Nothing is asked for any more."""
    server = serve(lambda seen: _page(seen, 99))
    pages = connector(server.url).pages(ALL)
    next(pages), next(pages)
    pages.close()  # type: ignore[attr-defined] # all that a connector promises is an iterator
    for thread in threading.enumerate():
        if thread.name == "call":
            thread.join(_PATIENCE)
            assert not thread.is_alive()
    assert len(server.seen) <= 13


def test_a_failure_ahead_is_told_where_its_page_is_due(serve: Serve, connector: Connect) -> None:
    """The pages before it are given out; then the error is raised as if nobody had read ahead."""
    server = serve(lambda seen: CUT if seen.query.get("cursor") == "3" else _page(seen, 5))
    pages = connector(server.url, limits={"retries": 0}).pages(ALL)
    assert [next(pages).records[0].external_id, next(pages).records[0].external_id] == ["1", "2"]
    with pytest.raises(CrmUnavailableError):
        next(pages)


class _Counted:
    """A CRM that counts its pages, one record each, and answers only when so many are asked for at once."""

    def __init__(self, last: int, together: int) -> None:
        self._last = last
        self._meeting = threading.Barrier(together)
        self.numbers: list[int] = []

    def __call__(self, seen: Seen) -> Reply:
        number = int(seen.query.get("page", "1"))
        self.numbers.append(number)
        if number > 1:
            self._meeting.wait(_PATIENCE)
        return reply(200, {"records": [{"id": number}], "total_pages": self._last})


def test_counted_pages_are_asked_for_together(serve: Serve, connector: Connect) -> None:
    """As many as may be in flight, each once, and given out in order; the first page alone."""
    crm = _Counted(last=9, together=4)
    made = connector(serve(crm).url, pagination={"style": "page"}, limits={"in_flight": 4})
    assert [page.records[0].external_id for page in made.pages(ALL)] == [str(each) for each in range(1, 10)]
    assert sorted(crm.numbers) == list(range(1, 10))


def test_one_in_flight_is_one_after_another(serve: Serve, connector: Connect) -> None:
    """A CRM that must not be asked for two things at once is not."""
    crm = _Counted(last=5, together=1)
    made = connector(serve(crm).url, pagination={"style": "page"}, limits={"in_flight": 1})
    assert len(list(made.pages(ALL))) == 5
    assert crm.numbers == [1, 2, 3, 4, 5]


def _by_offset(rows: int, size: int, sizes: dict[int, int]) -> Callable[[Seen], Reply]:
    """Pages by offset; ``sizes`` are those of pages that come out shorter."""

    def answer(seen: Seen) -> Reply:
        start = int(seen.query.get("offset", "0"))
        found = [{"id": each} for each in range(start, min(start + sizes.get(start, size), rows))]
        return reply(200, {"records": found, "total": rows})

    return answer


@pytest.mark.parametrize("sizes", [{}, {4: 1}, {0: 1}, {2: 1, 7: 1}])
def test_offsets_that_were_foretold_wrongly_lose_nothing(
    sizes: dict[int, int], serve: Serve, connector: Connect
) -> None:
    """Where a page is shorter than the first one, the next offset is what really came before."""
    server = serve(_by_offset(20, 2, sizes))
    made = connector(
        server.url, pagination={"style": "offset", "total_path": "total"}, limits={"in_flight": 4}
    )
    read = [record.external_id for page in made.pages(ALL) for record in page.records]
    assert read == [str(each) for each in range(20)]


def test_after_a_failure_nothing_more_is_sent(serve: Serve, connector: Connect) -> None:
    """A page that is asked for again and again is not, once the listing has failed elsewhere."""
    failed, asked = threading.Event(), threading.Event()

    def answer(seen: Seen) -> Reply:
        number = int(seen.query.get("page", "1"))
        if number == 3:
            asked.set()
            failed.wait(_PATIENCE)
            return reply(503)
        if number == 2:
            asked.wait(_PATIENCE)
            return reply(400)
        return reply(200, {"records": [{"id": number}], "total_pages": 3})

    server = serve(answer)
    made = connector(server.url, pagination={"style": "page"}, limits={"in_flight": 2, "retries": 3})
    pages = made.pages(ALL)
    next(pages)
    with pytest.raises(CrmRefusedError):
        next(pages)
    failed.set()
    for thread in threading.enumerate():
        if thread.name == "call":
            thread.join(_PATIENCE)
    assert sorted(seen.query.get("page", "1") for seen in server.seen) == ["1", "2", "3"]


@pytest.mark.parametrize("total", [0, -5, 1])
def test_a_total_that_a_page_contradicts_ends_nothing(total: int, serve: Serve, connector: Connect) -> None:
    """Three records on a page of a listing of one: the page is right, and there may be more."""

    def answer(seen: Seen) -> Reply:
        start = int(seen.query.get("offset", "0"))
        found = [{"id": each} for each in range(start, min(start + 3, 8))]
        return reply(200, {"records": found, "total": total})

    made = connector(serve(answer).url, pagination={"style": "offset", "total_path": "total"})
    read = [record.external_id for page in made.pages(ALL) for record in page.records]
    assert read == [str(each) for each in range(8)]


def test_a_failure_among_counted_pages_ends_the_listing_there(serve: Serve, connector: Connect) -> None:
    """Pages before it are given out, those after it are not, although they were asked for."""

    def answer(seen: Seen) -> Reply:
        number = int(seen.query.get("page", "1"))
        return CUT if number == 4 else reply(200, {"records": [{"id": number}], "total_pages": 9})

    made = connector(serve(answer).url, pagination={"style": "page"}, limits={"in_flight": 4, "retries": 0})
    pages = made.pages(ALL)
    assert [next(pages).records[0].external_id for _ in range(3)] == ["1", "2", "3"]
    with pytest.raises(CrmUnavailableError):
        next(pages)
