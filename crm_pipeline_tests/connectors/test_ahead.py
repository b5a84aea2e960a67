"""Reading ahead: the next page is asked for while one is worked on, and nothing else changes."""

from __future__ import annotations

import threading

import pytest

from crm_pipeline.connectors.base import CrmUnavailableError, Window
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


def test_the_next_page_is_asked_for_while_one_is_worked_on(serve: Serve, connector: Connect) -> None:
    """From the second page on, and never more than one ahead."""
    asked = threading.Semaphore(0)

    def answer(seen: Seen) -> Reply:
        asked.release()
        return _page(seen, 5)

    server, known = serve(answer), 0
    read: list[str | None] = []
    for page in connector(server.url).pages(ALL):
        read += [record.external_id for record in page.records]
        expected = len(read) + (1 < len(read) < 5)  # the pages so far, and the one behind them
        while known < expected:
            assert asked.acquire(timeout=_PATIENCE)
            known += 1
        assert len(server.seen) == expected
    assert read == ["1", "2", "3", "4", "5"]


def test_a_failure_ahead_is_told_where_its_page_is_due(serve: Serve, connector: Connect) -> None:
    """The pages before it are given out; then the error is raised as if nobody had read ahead."""
    server = serve(lambda seen: CUT if seen.query.get("cursor") == "3" else _page(seen, 5))
    pages = connector(server.url, limits={"retries": 0}).pages(ALL)
    assert [next(pages).records[0].external_id, next(pages).records[0].external_id] == ["1", "2"]
    with pytest.raises(CrmUnavailableError):
        next(pages)
