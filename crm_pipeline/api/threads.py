"""Threads: blocking work beside the event loop, in threads that do not keep the process alive."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


async def in_thread(work: Callable[[], R], name: str) -> R:
    """Run blocking work in a daemon thread of its own.

    Cancelling the caller leaves the work running to its end. Not ``asyncio.to_thread``: its
    threads are waited for when the process ends, and a pull or a push may take minutes.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()

    def tell(result: R | None, error: BaseException | None) -> None:
        if future.done():  # the caller is gone
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type] # None only where R is None

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future


def aside(work: Callable[[], object], name: str, failed: Callable[[Exception], None]) -> None:
    """Run blocking work that nobody waits for; ``failed`` is told when it fails."""

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - told on
            failed(error)

    threading.Thread(target=run, name=name, daemon=True).start()
