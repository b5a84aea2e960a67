"""Ahead: while one page of a listing is worked on, the next ones are asked for already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial, wraps
from threading import Event
from typing import ParamSpec, Self, TypeVar

from crm_pipeline.connectors.base import Page
from crm_pipeline.connectors.halt import in_thread

P = ParamSpec("P")
T = TypeVar("T")


def read_ahead(pages: Callable[P, Iterator[Page]]) -> Callable[P, Iterator[Page]]:
    """Let a listing be one page ahead of who reads it, from the second page on.

    Most polls have one page, and a look at the first page must cost one call: neither begins a thread.
    Who stops early leaves at most one request under way, whose answer nobody takes.
    """

    @wraps(pages)
    def ahead(*arguments: P.args, **options: P.kwargs) -> Iterator[Page]:
        listing = pages(*arguments, **options)
        page = next(listing)
        yield page
        coming: Future[Page] | None = None
        with Beginner() as begin:
            while page.next is not None:
                page = coming.result() if coming is not None else next(listing)
                coming = begin(partial(next, listing)) if page.next is not None else None
                yield page

    return ahead


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
