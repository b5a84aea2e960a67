"""Ahead: while one page of a listing is worked on, the next ones are asked for already."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import wraps
from queue import SimpleQueue
from threading import Event
from typing import ParamSpec, Self, TypeVar

from crm_pipeline.connectors.base import Page
from crm_pipeline.connectors.halt import in_thread

P = ParamSpec("P")
T = TypeVar("T")


_PAGES, _RECORDS = 10, 1000
"""So much may have come and not been taken: as many records as are worth a transaction, but no more calls."""


def read_ahead(pages: Callable[P, Iterator[Page]]) -> Callable[P, Iterator[Page]]:
    """Let a listing be some pages ahead of who reads it, from the second page on.

    Most polls have one page, and a look at the first page must cost one call: neither begins a thread.
    Who stops early leaves at most one request under way, whose answer nobody takes.
    """

    @wraps(pages)
    def ahead(*arguments: P.args, **options: P.kwargs) -> Iterator[Page]:
        listing = pages(*arguments, **options)
        page = next(listing)
        yield page
        if page.next is not None:
            page = next(listing)
            yield from [page] if page.next is None else _ahead(page, listing)

    return ahead


def _ahead(first: Page, listing: Iterator[Page]) -> Iterator[Page]:
    """A page and the rest of a listing, which a thread reads meanwhile."""
    most = min(_PAGES, _RECORDS // max(len(first.records), 1)) or 1
    come: deque[Page | BaseException] = deque([first])
    # Queues, because a generator may be finalised anywhere, and these can be put into anywhere.
    there, room, halt = SimpleQueue[None](), SimpleQueue[None](), Event()
    there.put(None)
    for _ in range(most - 1):
        room.put(None)

    def put(what: Page | BaseException) -> None:
        come.append(what)
        there.put(None)

    def fetch() -> None:
        try:
            while room.get() is None and not halt.is_set():
                page = next(listing)
                put(page)
                if page.next is None:
                    return
        except BaseException as error:  # noqa: BLE001 - raised where its page is due
            put(error)

    in_thread(fetch, halt)
    try:
        while there.get() is None:
            page = come.popleft()
            if isinstance(page, BaseException):
                raise page
            room.put(None)
            yield replace(page, followed=bool(come) and isinstance(come[0], Page))
            if page.next is None:
                return
    finally:
        halt.set()
        room.put(None)


class Beginner:
    """Begins work in threads. After the block nothing more is sent; what is on the wire is left to itself."""

    def __init__(self) -> None:
        """Nothing begun."""
        self._halt = Event()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Let nothing more be sent."""
        self._halt.set()

    def __call__(self, work: Callable[[], T]) -> Future[T]:
        """What comes of work."""
        coming: Future[T] = Future()

        def do() -> None:
            try:
                coming.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
                coming.set_exception(error)

        in_thread(do, self._halt)
        return coming
