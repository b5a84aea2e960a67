"""Delivery: all channels are told at the same time, and none is waited for longer than is bearable."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from queue import Empty, SimpleQueue

from crm_pipeline.alerting.channels import Channel, DeliveryError
from crm_pipeline.alerting.messages import Message

SECONDS = 8.0
"""Waited for all channels together: a sensor's tick has a minute for everything."""
_busy: set[tuple[str, str]] = set()
"""Connections and channels with a thread under way: one that hangs gets no second one."""
_lock = threading.Lock()


def deliver(
    connection: str, channels: Mapping[str, Channel], messages: Mapping[str, Message]
) -> Iterator[tuple[str, str | None]]:
    """What became of each channel's message, as soon as it is known: how it failed, or None.

    A timeout of a socket counts from byte to byte. Only a thread that can be left alone ends a wait
    for a server that says one byte now and then.
    """
    answers: SimpleQueue[tuple[str, str | None]] = SimpleQueue()
    waiting = set(messages)
    for name, message in messages.items():
        if _begins(connection, name):
            job = (connection, name, channels[name], message, answers)
            threading.Thread(target=_send, args=job, name=f"alert channel {name}", daemon=True).start()
        else:
            answers.put((name, "it hangs at an earlier message"))
    until = time.monotonic() + SECONDS
    while waiting:
        try:
            name, failure = answers.get(timeout=max(0.0, until - time.monotonic()))
        except Empty:
            break
        waiting.discard(name)
        yield name, failure
    for name in sorted(waiting):
        yield name, f"no answer within {SECONDS:g} s"


def _begins(connection: str, name: str) -> bool:
    with _lock:
        free = (connection, name) not in _busy
        _busy.add((connection, name))
    return free


def _send(
    connection: str,
    name: str,
    channel: Channel,
    message: Message,
    answers: SimpleQueue[tuple[str, str | None]],
) -> None:
    failure = None
    try:
        channel(message)
    except DeliveryError as error:
        failure = str(error)
    except Exception as error:  # noqa: BLE001 - it counts as not told; its text may hold addresses
        failure = type(error).__name__
    finally:
        _busy.discard((connection, name))
    answers.put((name, failure))
