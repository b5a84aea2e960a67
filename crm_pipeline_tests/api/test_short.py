"""The short way: a webhook that takes it is answered as on the long one, to the letter."""

from __future__ import annotations

import json
import re
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest

from crm_pipeline.api.limits import Limiter
from crm_pipeline.api.logs import Log
from crm_pipeline.api.short import ShortWay
from crm_pipeline_tests.api.conftest import Serve
from crm_pipeline_tests.api.served import (
    KEY,
    PATIENCE,
    RECORD,
    SECRET,
    Reply,
    Served,
    eventually,
    head,
    read_reply,
    webhook_head,
)

BODY = json.dumps({"secret": SECRET, **RECORD}).encode()
LIST = json.dumps([{"secret": SECRET, **RECORD}, {"secret": SECRET, "name": "nobody"}]).encode()
_OWN = {"request_id", "ms", "timestamp", "at", "date", "x-request-id"}
"""What no two answers or lines have in common."""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Bodies that took the short way."""
    bodies: list[bytes] = []
    usual = ShortWay.__call__

    def noting(way: ShortWay, scope: Any, headers: Any, body: bytes, answer: Any) -> None:
        bodies.append(body)
        usual(way, scope, headers, body, answer)

    monkeypatch.setattr(ShortWay, "__call__", noting)
    return bodies


@dataclass
class Told:
    """An answer and its line in the log, without what is their own."""

    status: int
    headers: dict[str, str]
    body: Any
    line: dict[str, Any]


def ask(api: Served, top: bytes, body: bytes, *, whole: bool) -> Told:
    """Send a request, to be taken the short way or the long one."""
    with nullcontext() if whole else patch.dict(api.whole, clear=True), api.connect() as connection:
        lines = len(api.log)
        connection.sendall(top + body)
        reply = read_reply(connection)
        eventually(lambda: len(api.log) > lines)
    return Told(reply.status, _common(reply.headers), _body(reply), _common(api.log[-1]))


def _common(named: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if name not in _OWN}


def _body(reply: Reply) -> Any:
    text = reply.body.decode()
    for result in (reply.json, *reply.json.get("results", ())):
        text = text.replace(result.get("eventId", "-"), "its id")
    return text


def both(api: Served, taken: list[bytes], top: bytes, body: bytes) -> Told:
    """What either way tells."""
    long = ask(api, top, body, whole=False)
    assert not taken
    short = ask(api, top, body, whole=True)
    again = ask(api, top, body, whole=True)  # its head is known by then
    assert taken == [body, body]
    taken.clear()
    assert again == short == long
    return short


@pytest.mark.parametrize(
    "headers, body, status",
    [
        ({}, BODY, 200),
        ({}, LIST, 200),
        ({"webhook-id": "evt-1"}, BODY, 200),
        ({"webhook-id": "not one word"}, BODY, 400),
        ({"X-API-Key": "wrong"}, BODY, 401),
        ({}, json.dumps({"secret": "wrong", **RECORD}).encode(), 401),
        ({"Content-Type": "text/plain"}, BODY, 415),
        ({"Content-Encoding": "gzip"}, BODY, 415),
        ({"Connection": "close"}, BODY, 200),
        ({}, b'{"secret": ', 400),
        ({}, b"[]", 400),
        ({}, b'{"a": 1, "a": 2}', 400),
        ({}, json.dumps({"secret": SECRET, "name": "nobody"}).encode(), 422),
    ],
)
def test_the_same_answer_and_the_same_line(
    api: Served, taken: list[bytes], headers: dict[str, str], body: bytes, status: int
) -> None:
    """Good or bad, listed or single: status, headers, body and log line are the same."""
    assert both(api, taken, webhook_head(len(body), **headers), body).status == status


def test_what_stands_before_it_is_the_same(serve: Serve, taken: list[bytes]) -> None:
    """An address that may not, an integration that is off, a key that is not needed."""
    for settings, status in (
        ({"allowed_ips": "192.0.2.1"}, 403),
        ({"external_crm_enabled": False}, 503),
        ({"api_auth_enabled": False}, 200),
        ({"external_crm_webhook_secret": None, "external_crm_sync_mode": "polling"}, 503),
    ):
        api = serve(**settings)
        assert both(api, taken, webhook_head(len(BODY)), BODY).status == status


def test_both_count_together(serve: Serve, taken: list[bytes]) -> None:
    """A limit is one limit, whichever way requests take; the one too many is refused alike."""
    api = serve(limiter=Limiter(4, log=Log()))
    top = webhook_head(len(BODY))
    told = [ask(api, top, BODY, whole=number % 2 == 0) for number in range(6)]
    assert [each.status for each in told] == [200] * 4 + [429] * 2
    assert told[4].body == told[5].body
    assert len(taken) == 3


def test_what_is_not_whole_or_not_a_webhook_goes_the_long_way(api: Served, taken: list[bytes]) -> None:
    """And of several that come at once, each is answered in its turn."""
    status = head("GET", "/healthz")
    with api.connect() as connection:
        connection.sendall((webhook_head(len(BODY)) + BODY + status) * 2)
        seen = b""
        while seen.count(b"HTTP/1.1 200") < 4:
            seen += connection.recv(65536)
    assert taken == [BODY]
    assert seen.index(b"landed") < seen.index(b'"ok"') < seen.rindex(b"landed") < seen.rindex(b'"ok"')


def test_one_after_the_other_on_one_connection(api: Served, taken: list[bytes]) -> None:
    """The connection stays open, and what comes broken after a whole request ends it in order."""
    with api.connect() as connection:
        for _ in range(3):
            connection.sendall(webhook_head(len(BODY)) + BODY)
            assert read_reply(connection).status == 200
        connection.sendall(webhook_head(len(BODY)) + BODY + b"no http\r\n\r\n")
        assert read_reply(connection).status == 200
        assert connection.recv(1) == b""
    assert len(taken) == 4


def test_a_sender_that_leaves_does_no_harm(api: Served, taken: list[bytes]) -> None:
    """It is stored, and counted as answered; whether its head was known or not."""
    for times in (1, 2):
        body = json.dumps({"secret": SECRET, **RECORD, "capacity": times}).encode()
        with api.connect() as connection:
            connection.sendall(webhook_head(len(body)) + body)
        eventually(lambda times=times: api.rows()[0] == times)
        eventually(lambda times=times: len(api.log) == times)
        assert len(taken) == times
    assert api.post(RECORD).status_code == 200


HEAD = webhook_head(len(BODY))
OTHER = BODY.replace(b"Budi", b"Sari")
ONE_MORE = HEAD + BODY


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD + OTHER],
        [ONE_MORE * 3],
        [ONE_MORE + HEAD, OTHER],
        [HEAD, OTHER],
        [HEAD + OTHER[:9], OTHER[9:]],
        [HEAD[:-2], HEAD[-2:] + OTHER],
        [HEAD + OTHER + b"\r\n", ONE_MORE],
        [b"\r\n" + HEAD + OTHER],
        [b"\r\n\r\n" + HEAD + OTHER],
        [b"\r\n", HEAD + OTHER],
        [HEAD + BODY[:-1] + b"]"],
        [HEAD + OTHER + b"no http\r\n\r\n"],
        [HEAD.replace(KEY.encode(), KEY.swapcase().encode()) + OTHER],
        [HEAD.replace(b"POST", b"PUT") + OTHER],
        [webhook_head(len(BODY), **{"X-Forwarded-For": "192.0.2.7"}) + OTHER],
        [HEAD.replace(b"\r\n", b"\n") + OTHER],
    ],
)
def test_a_known_head_changes_nothing(api: Served, taken: list[bytes], pieces: list[bytes]) -> None:
    """Whatever comes once a head is known, in whatever pieces: the answers are those of the long way."""
    short = _told(api, pieces)
    assert taken
    with patch.dict(api.whole, clear=True):
        assert _told(api, pieces) == short


def _told(api: Served, pieces: list[bytes]) -> list[tuple[int, Any]]:
    """Statuses and bodies of what comes after two answers, to the end of the connection."""
    with api.connect() as connection:
        for _ in range(2):
            connection.sendall(ONE_MORE)
            assert read_reply(connection).status == 200
        with suppress(OSError):  # it was closed after what is no HTTP
            for piece in (*pieces, head("GET", "/healthz", {"Connection": "close"})):
                connection.sendall(piece)
        answers = b""
        while more := connection.recv(65536):
            answers += more
    told = re.findall(rb"HTTP/1.1 (\d+) .*?\r\n\r\n([^\r]*?)(?=HTTP/1.1 |$)", answers, re.DOTALL)
    return [(int(status), re.sub(rb"[0-9a-f]{32}", b"its id", body)) for status, body in told]


def test_a_failure_of_ours_is_told_by_neither(
    api: Served, taken: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a 500 without its text; the log has its place."""

    def broken(*_arguments: Any) -> None:
        raise ZeroDivisionError("the secret of a row")

    monkeypatch.setattr("crm_pipeline.sync.reception.Reception.receive", broken)
    told = both(api, taken, webhook_head(len(BODY)), BODY)
    assert told.status == 500
    assert told.line["error"] == "ZeroDivisionError"
    assert b"secret of a row" not in api.output.getvalue()


def test_room_for_bodies_is_given_back(api: Served, taken: list[bytes]) -> None:
    """However often, and however it ends."""
    big = b'{"a": "%s"}' % (b"x" * 60_000)
    deadline = time.monotonic() + PATIENCE
    for _ in range(400):  # 24 MB, of 16 MiB that one caller may have at once
        assert time.monotonic() < deadline
        assert api.raw(webhook_head(len(big)) + big).status == 401
    assert taken
