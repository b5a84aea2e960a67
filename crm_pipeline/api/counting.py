"""Counting for several processes of one machine: their parent keeps the window, and they ask it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crm_pipeline.api.limits import Window


@contextmanager
def counting(path: Path) -> Iterator[None]:
    """Answer at a Unix socket while the block lasts."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="counting", daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(_serve(path), loop).result()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _serve(path: Path) -> None:
    window = Window(time.monotonic)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            limit, kind, name = line.decode().split(" ", 2)
            wait = window.hit((kind, name), int(limit))
            writer.write(f"{wait or 0}\n".encode())
        writer.close()

    await asyncio.start_unix_server(answer, path)


class Asking:
    """The side of a process that asks."""

    def __init__(self, path: Path) -> None:
        """Connect when first asked."""
        self._path = path
        self._turn = asyncio.Lock()
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def hit(self, caller: tuple[str, str], limit: int) -> float | None:
        """As a window's.

        Raises:
            OSError: nobody answers.
        """
        async with self._turn:
            ends, self._ends = self._ends, None  # given back when the answer has come, and only then
            reader, writer = ends or await asyncio.open_unix_connection(self._path)
            writer.write(f"{limit} {' '.join(caller)}\n".encode())
            answer = await reader.readline()
            if not answer:
                raise ConnectionResetError
            self._ends = reader, writer
        return float(answer) or None
