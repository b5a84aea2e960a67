"""Channels that answer a byte at a time, over real sockets: nobody waits for them."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import ClassVar

import pytest
from sqlalchemy.engine import Engine

from crm_pipeline.alerting import delivery
from crm_pipeline.alerting.channels import Channel, channels_of
from crm_pipeline.alerting.delivery import deliver
from crm_pipeline.alerting.keeper import note, tell
from crm_pipeline.alerting.messages import trial
from crm_pipeline.settings import load_settings
from crm_pipeline_tests.alerting.test_keeper import AWAY, Listener, Watch

MESSAGE = trial("default")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n"


class Drip(socketserver.BaseRequestHandler):
    """Says its beginning at once, and then a byte now and then until it is let go."""

    beginning: ClassVar[bytes] = b""
    calls: ClassVar[int] = 0
    over: ClassVar[threading.Event] = threading.Event()

    def handle(self) -> None:
        """Drip."""
        Drip.calls += 1
        self.request.sendall(self.beginning)
        while not self.over.wait(0.05):
            try:
                self.request.sendall(b"x")
            except OSError:
                return


class Server(socketserver.ThreadingTCPServer):
    """Ends even if a client holds on."""

    daemon_threads = True
    block_on_close = False


@pytest.fixture
def drip(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Such a server's address, for clients that wait half a second. All threads end with it."""
    monkeypatch.setattr(delivery, "SECONDS", 0.5)
    monkeypatch.setattr(Drip, "calls", 0)
    monkeypatch.setattr(Drip, "over", threading.Event())
    with ExitStack() as stack:
        server = stack.enter_context(Server(("127.0.0.1", 0), Drip))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        yield f"127.0.0.1:{server.server_address[1]}"
        Drip.over.set()
        for thread in threading.enumerate():
            if thread.name.startswith("alert channel"):
                thread.join(10)


def _told(channels: dict[str, Channel]) -> dict[str, str | None]:
    return dict(deliver("default", channels, dict.fromkeys(channels, MESSAGE)))


def test_a_channel_that_never_ends_its_answer_is_left_alone(
    drip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers and a mail server's greeting that drip: all are given up together, the others are told."""
    monkeypatch.setattr(Drip, "beginning", b"HTTP/1.1 200 ")
    settings = load_settings(
        alert_url=f"http://{drip}/",
        alert_mail_to="team@example.org",
        alert_mail_from="crm@example.org",
        alert_smtp_url=f"smtp://{drip}",
    )
    chat = Listener()
    began = time.monotonic()
    found = _told({**channels_of(settings), "chat": chat})
    assert time.monotonic() - began < 2
    assert found == {"chat": None, "url": "no answer within 0.5 s", "mail": "no answer within 0.5 s"}


def test_a_channel_that_hangs_gets_no_second_thread(drip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails at once until its thread has ended; then it is asked again."""
    monkeypatch.setattr(Drip, "beginning", b"HTTP/1.1 200 OK\r\nX-Slow: ")
    channels = channels_of(load_settings(alert_url=f"http://{drip}/"))
    _told(channels)
    for _ in range(3):
        assert _told(channels) == {"url": "it hangs at an earlier message"}
    assert Drip.calls == 1


def test_a_body_that_never_ends_is_not_read(drip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status says all."""
    monkeypatch.setattr(Drip, "beginning", HEAD + b"\r\n")
    assert _told(channels_of(load_settings(alert_url=f"http://{drip}/"))) == {"url": None}


def test_what_nobody_foresaw_is_a_failure_of_that_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kind is told and not its text, which may hold an address."""
    monkeypatch.setattr(delivery, "SECONDS", 5)
    chat = Listener()

    def broken(_message: object) -> None:
        raise ValueError("s3cret")

    assert _told({"broken": broken, "chat": chat}) == {"broken": "ValueError", "chat": None}


def test_the_others_are_noted_even_if_the_process_dies_of_one(
    engine: Engine, drip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who took a message never gets it again because another channel hangs."""
    monkeypatch.setattr(Drip, "beginning", b"HTTP/1.1 200 OK\r\nX-Slow: ")
    chat = Listener()
    hangs = channels_of(load_settings(alert_url=f"http://{drip}/"))["url"]
    watch = Watch(engine, {"chat": chat, "url": hangs})
    watch.look(AWAY, minutes=2)
    note(engine, "default", [AWAY], list(watch.channels), watch.now)
    clock = [watch.now, watch.now]  # to claim, and to note the first channel; then the process dies
    with pytest.raises(IndexError):
        tell(engine, "default", watch.channels, clock.pop)
    assert len(chat.heard) == 1
    watch.look(AWAY, minutes=10)
    assert len(chat.heard) == 1
