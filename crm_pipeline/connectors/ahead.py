"""Ahead: while one page of a listing is worked on, the next ones are asked for already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial, wraps
from threading import Thread
from typing import ParamSpec, TypeVar

from crm_pipeline.connectors.base import Page

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
        while page.next is not None:
            page = coming.result() if coming is not None else next(listing)
            coming = begun(partial(next, listing)) if page.next is not None else None
            yield page

    return ahead


def begun(work: Callable[[], T]) -> Future[T]:
    """What comes of work, begun in a thread that nobody's end waits for: a request may take minutes."""
    coming: Future[T] = Future()

    def do() -> None:
        try:
            coming.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            coming.set_exception(error)

    Thread(target=do, name="ahead", daemon=True).start()
    return coming
