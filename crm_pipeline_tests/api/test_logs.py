"""The log: a line for each request, of which nobody can be recognised and which nobody can forge."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading

import pytest

from crm_pipeline.api.logs import Log, Pseudonyms
from crm_pipeline.logs import Lines, LogFormat
from crm_pipeline_tests.api.conftest import Serve
from crm_pipeline_tests.api.served import KEY, SECRET, WEBHOOK, Served, head

EVIL = 'x"}\r\n{"event":"forged"}\x1b[31m\u202e'


def test_one_line_for_each_request(shared: Served) -> None:
    """With its name, route, status, time, caller and key; the caller and the contact under other names."""
    before = len(shared.log)
    shared.ask("POST", "/api/external/push/628999999999")
    shared.ask("GET", f"/api/external/status?api_key={KEY}")
    push, status = shared.log[before:]
    assert push | {"request_id": "", "ms": 0, "timestamp": ""} == {
        "event": "request",
        "level": "info",
        "request_id": "",
        "method": "POST",
        "route": "/api/external/push/{contact_id}",
        "status": 404,
        "ms": 0,
        "caller": status["caller"],
        "key": status["key"],
        "subject": push["subject"],
        "timestamp": "",
    }
    assert len(status["key"]) == 8
    assert len(push["subject"]) == 12


def test_nobody_can_be_recognised(shared: Served) -> None:
    """No phone, name, address, key, secret, query or header of anybody, whatever is sent."""
    marks = {
        "phone": "628555555555",
        "name": "Marked Name",
        "query": "marked-query",
        "agent": "marked-agent",
        "key": "marked-key",
        "path": "marked-path",
        "event": "marked-event",
    }
    shared.post({"phone": marks["phone"], "name": marks["name"]}, headers={"webhook-id": marks["event"]})
    shared.post({"phone": f"{marks['phone']}@g.us", "name": marks["name"]})
    shared.ask(
        "GET", f"{WEBHOOK}/{marks['event']}?x={marks['query']}", headers={"User-Agent": marks["agent"]}
    )
    shared.ask("POST", f"/api/external/push/{marks['phone']}")
    shared.ask("GET", "/api/external/status", key=marks["key"], headers={"X-Forwarded-For": "198.51.100.77"})
    shared.ask("GET", f"/{marks['path']}/{marks['phone']}")
    written = shared.output.getvalue().decode()
    for mark in (*marks.values(), KEY, SECRET, "127.0.0.1", "198.51.100.77"):
        assert mark not in written


def test_no_line_can_be_forged(shared: Served) -> None:
    """Line breaks, escapes and marks of writing direction stay inside one line, as plain ASCII."""
    before = len(shared.log)
    shared.post({"phone": "628444444444", "name": EVIL})
    shared.raw(head("GET", "/x%0d%0a%7b%22event%22:%22forged%22%7d%1b[31m"))
    shared.raw(b'GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: {"event":"forged"}\r\n\r\n')
    lines = shared.output.getvalue()
    assert lines.isascii()
    assert [line["event"] for line in shared.log[before:]] == ["request"] * 3


def test_odd_characters_are_escaped() -> None:
    """Even where one of our own values holds them."""
    output = io.BytesIO()
    Log(output).info("odd", value=EVIL)
    assert output.getvalue().isascii()
    assert output.getvalue().count(b"\n") == 1
    assert json.loads(output.getvalue())["value"] == EVIL


def test_what_libraries_log_is_a_line_without_their_messages(caplog: pytest.LogCaptureFixture) -> None:
    """An error's kind and place, never its text: that may quote a contact."""
    try:
        int("a phone: 628333333333")
    except ValueError:
        with caplog.at_level(logging.ERROR):
            logging.getLogger("somebody").exception("failed")
    line = json.loads(Lines().format(caplog.records[-1]))
    assert line == {
        "event": "failed",
        "logger": "somebody",
        "level": "error",
        "error": "ValueError",
        "at": line["at"],
        "timestamp": line["timestamp"],
    }
    assert line["at"].startswith("test_logs.py:")


def test_names_in_the_log_are_keyed() -> None:
    """The same under one key, others under another, and no digest that can be tried out."""
    one, other = Pseudonyms(b"one"), Pseudonyms(b"other")
    assert one.of("628111111111") == Pseudonyms(b"one").of("628111111111") != other.of("628111111111")
    assert one.of("628111111111") != one.of("628111111112")
    assert one.of("\ud800")


def test_one_turn_of_the_loop_is_written_at_once() -> None:
    """In order, also with what threads log meanwhile, which waits for nobody."""
    output = io.BytesIO()
    log = Log(output)

    async def turns() -> None:
        for event in ("first", "second"):
            log.info(event)
        assert not output.getvalue()
        await asyncio.sleep(0)
        assert _events(output) == ["first", "second"]
        log.warning("third")
        thread = threading.Thread(target=log.error, args=("fourth",))
        thread.start()
        thread.join()
        assert _events(output) == ["first", "second", "third", "fourth"]

    asyncio.run(turns())


def test_what_a_loop_left_behind_is_written_by_the_next() -> None:
    """A loop may end in the turn in which something was logged."""
    output = io.BytesIO()
    log = Log(output)
    ended = asyncio.new_event_loop()
    ended.call_soon(log.info, "left")
    ended.call_soon(ended.stop)
    ended.run_forever()
    ended.close()
    assert not output.getvalue()

    async def go_on() -> None:
        log.info("next")
        await asyncio.sleep(0)

    asyncio.run(go_on())
    assert _events(output) == ["left", "next"]


def _events(output: io.BytesIO) -> list[str]:
    return [json.loads(line)["event"] for line in output.getvalue().splitlines()]


def test_lines_for_people() -> None:
    """LOG_FORMAT=text: the same facts, one line each, and nothing that could break or disguise it."""
    output = io.BytesIO()
    Log(output, LogFormat.TEXT).info("request", status=200, subject=EVIL)
    (line,) = output.getvalue().decode().splitlines()
    assert line.isascii()
    assert line.split(maxsplit=1)[1].startswith("info request status=200 subject=")


def test_the_end_of_a_step_is_a_line_with_its_run(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Which run, how it ended, and its figures: what an event became can be followed by its run's id."""
    api = serve()
    event = api.post({"phone": "628222222222"}).json()["eventId"]
    with caplog.at_level(logging.INFO, "crm_pipeline.steps"):
        api.service.apply_events()
    line = json.loads(Lines().format(caplog.records[-1]))
    assert (line["event"], line["step"], line["state"], line["created"]) == ("step", "apply", "done", 1)
    assert line["run_id"] == api.ask("GET", f"{WEBHOOK}/{event}").json()["runId"]
