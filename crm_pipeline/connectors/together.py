"""Together: questions that a CRM answers one at a time, several under way at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar, cast

from crm_pipeline.connectors.halt import in_thread

Q = TypeVar("Q")
A = TypeVar("A")


def together(ask: Callable[[Q], A], questions: Sequence[Q], most: int) -> list[A]:
    """The answers, in the order of the questions; each is asked once, at most so many at the same time.

    The first failure ends it: nothing more is sent, and what is on the wire is left to itself.

    Raises:
        Exception: what the first of them to fail raised.
    """
    if min(most, len(questions)) <= 1:
        return [ask(question) for question in questions]
    answers: list[A | None] = [None] * len(questions)
    left, ended, halt = iter(range(len(questions))), SimpleQueue[BaseException | None](), threading.Event()

    def work() -> None:
        try:
            while not halt.is_set() and (place := next(left, None)) is not None:
                answers[place] = ask(questions[place])
        except BaseException as error:  # noqa: BLE001 - raised where the answers are waited for
            ended.put(error)
        else:
            ended.put(None)

    threads = min(most, len(questions))
    try:
        for _ in range(threads):
            in_thread(work, halt)
        for _ in range(threads):
            if (error := ended.get()) is not None:
                raise error
    finally:
        halt.set()
    return cast("list[A]", answers)
