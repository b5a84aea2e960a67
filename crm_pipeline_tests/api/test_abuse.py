"""Requests that should not get anywhere: each refused in one form, nothing stored, nobody else disturbed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import TypeAlias

import pytest
import requests

from crm_pipeline_tests.api.served import (
    KEY,
    RECORD,
    SECRET,
    WEBHOOK,
    Reply,
    Served,
    head,
    webhook_head,
)

Refused: TypeAlias = requests.Response | Reply
STATUS = "/api/external/status"
PUSH = "/api/external/push/"
BODY = json.dumps({"secret": SECRET, **RECORD}).encode()


def body(content: bytes | str, **headers: str) -> Callable[[Served], Refused]:
    """A webhook of these bytes."""
    content = content.encode() if isinstance(content, str) else content
    return lambda api: api.post_bytes(content, headers=headers)


def with_value(text: str, name: str = "name") -> Callable[[Served], Refused]:
    """A webhook with a field of this JSON text."""
    return body(f'{{"secret":"{SECRET}","phone":"628111111111","{name}":{text}}}')


def secret(text: str) -> Callable[[Served], Refused]:
    """A webhook with a secret of this JSON text."""
    return body(f'{{"secret":{text},"phone":"628111111111"}}')


def keyed(*lines: str, path: str = WEBHOOK, method: str = "POST") -> Callable[[Served], Refused]:
    """A request with these header lines and no key but theirs."""
    text = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    text += f"Content-Length: {len(BODY)}\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return lambda api: api.raw(text.encode("latin-1") + BODY)


def chunked(size: int) -> Callable[[Served], Refused]:
    """A webhook of unknown length that is this long."""
    piece = b"%x\r\n" % 65536 + b" " * 65536 + b"\r\n"
    return lambda api: api.raw(webhook_head(None), *([piece] * (size // 65536 + 1)), b"0\r\n\r\n")


def push(path: str) -> Callable[[Served], Refused]:
    """A push of a contact whose id is written like this in the path."""
    return lambda api: api.raw(head("POST", PUSH + path, {"Content-Length": "0"}))


def asked(method: str, path: str, key: str | None = KEY) -> Callable[[Served], Refused]:
    """A plain request."""
    return lambda api: api.ask(method, path, key=key)


ENDPOINTS = (
    ("POST", WEBHOOK),
    ("GET", f"{WEBHOOK}/some-id"),
    ("GET", "/api/external/fetch"),
    ("POST", "/api/external/fetch"),
    ("POST", f"{PUSH}628111111111"),
    ("GET", STATUS),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
)
TABLE: list[tuple[str, Callable[[Served], Refused], int]] = [
    # Who calls.
    *((f"no key: {method} {path}", keyed(path=path, method=method), 401) for method, path in ENDPOINTS),
    *(
        (f"wrong key: {method} {path}", keyed("X-API-Key: wrong", path=path, method=method), 401)
        for method, path in ENDPOINTS
    ),
    ("empty key", keyed("X-API-Key:"), 401),
    ("two keys", keyed(f"X-API-Key: {KEY}", "X-API-Key: wrong"), 401),
    ("the right key twice", keyed(f"X-API-Key: {KEY}", f"X-API-Key: {KEY}"), 401),
    ("both keys in one", keyed(f"X-API-Key: {KEY}, {KEY}"), 401),
    ("a key and more", keyed(f"X-API-Key: {KEY}x"), 401),
    ("the start of a key", keyed(f"X-API-Key: {KEY[:-1]}"), 401),
    ("a key of odd bytes", keyed("X-API-Key: \xff\x80\xe9"), 401),
    ("key in the query", asked("GET", f"{STATUS}?api_key={KEY}&X-API-Key={KEY}", key=None), 401),
    (
        "key in the body",
        body(json.dumps({"X-API-Key": KEY, "secret": SECRET, **RECORD}), **{"X-API-Key": ""}),
        401,
    ),
    ("key as bearer", keyed(f"Authorization: Bearer {KEY}"), 401),
    *((f"secret {text}", secret(text), 401) for text in ("null", "5", "true", "[]", "{}", '""', '"wrong"')),
    ("secret in a list", secret(f'["{SECRET}"]'), 401),
    ("secret of odd characters", secret('"\\u00ff\\u0080"'), 401),
    ("secret of half a character", secret('"\\ud800"'), 401),
    ("no secret", body('{"phone":"628111111111"}'), 401),
    ("one of two without secret", body(json.dumps([{"secret": SECRET, **RECORD}, RECORD])), 401),
    ("wrong secret and odd text", body('{"secret":"wrong","name":"\\u0000"}'), 401),
    # What is no JSON, or none of ours.
    *(
        (f"body {text!r}", body(text), 400)
        for text in ("", " ", "{", '{"phone":', "{'a':1}", "nul", "[1,]", "01")
    ),
    *((f"shape {text}", body(text), 400) for text in ("[]", '"x"', "null", "5", "[null]", '[["x"]]', "true")),
    *((f"number {text}", with_value(text, "ticket_price"), 400) for text in ("NaN", "Infinity", "-Infinity")),
    *((f"number {text}", with_value(text, "ticket_price"), 400) for text in ("1e999", "-1e999", "1e100000")),
    *((f"{depth} deep", with_value("[" * depth + "]" * depth), 400) for depth in (40, 1000, 5000, 100_000)),
    ("100000 objects deep", with_value('{"a":' * 100_000 + "1" + "}" * 100_000), 400),
    ("never closed", body("[" * 100_000), 400),
    *((f"{digits} digits", with_value("9" * digits, "ticket_price"), 400) for digits in (65, 4301, 5000)),
    ("a key twice", body(f'{{"secret":"{SECRET}","phone":"628111111111","phone":"628222222222"}}'), 400),
    ("a key twice, inside", with_value('{"a":1,"a":1}'), 400),
    ("a long text", with_value(json.dumps("x" * 70_000)), 400),
    ("a long list", with_value(json.dumps([0] * 1001)), 400),
    ("a long batch", body(json.dumps([{"secret": SECRET}] * 1001)), 400),
    ("many values", with_value(json.dumps([[0] * 900] * 150)), 400),
    ("UTF-16", body(BODY.decode().encode("utf-16")), 400),
    ("UTF-32", body(BODY.decode().encode("utf-32")), 400),
    ("a byte order mark", body(b"\xef\xbb\xbf" + BODY), 400),
    ("bad UTF-8", body(BODY.replace(b"Budi", b"\xff\xfe")), 400),
    ("a surrogate in UTF-8", body(BODY.replace(b"Budi", b"\xed\xa0\x80")), 400),
    ("overlong UTF-8", body(BODY.replace(b"Budi", b"\xc0\xaf")), 400),
    ("a control character", body(BODY.replace(b"Budi", b"B\x01")), 400),
    # Types, lengths, encodings.
    *(
        (f"type {kind!r}", body(BODY, **{"Content-Type": kind}), 415)
        for kind in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/json; charset=utf-7",
            "application/json; charset=utf-16",
            "application/jsonp",
            "application/json, text/plain",
            "",
        )
    ),
    ("no type", lambda api: api.raw(head("POST", WEBHOOK, {"Content-Length": str(len(BODY))}) + BODY), 415),
    ("gzip", body(gzip.compress(BODY), **{"Content-Encoding": "gzip"}), 415),
    ("a bomb", body(gzip.compress(b" " * 50_000_000), **{"Content-Encoding": "gzip"}), 415),
    ("deflate", body(BODY, **{"Content-Encoding": "deflate"}), 415),
    ("one byte too long", body(b" " * (1024 * 1024 + 1)), 413),
    ("far too long", body(b" " * (8 * 1024 * 1024)), 413),
    ("announced too long", lambda api: api.raw(webhook_head(10**12)), 413),
    ("announced absurdly", lambda api: api.raw(webhook_head(10**30)), 400),
    ("too long in chunks", chunked(1024 * 1024 + 1), 413),
    ("longer than announced", lambda api: api.raw(webhook_head(5) + b"12345" + b"garbage\r\n\r\n"), 400),
    # The protocol.
    ("a header of 64 KB", lambda api: api.raw(head("GET", STATUS, {"X-Long": "x" * 65536})), 431),
    (
        "a header that does not end",
        lambda api: api.raw(b"GET / HTTP/1.1\r\nX-Long: ", *([b"x" * 8192] * 16)),
        431,
    ),
    ("1000 headers", lambda api: api.raw(head("GET", STATUS, {f"X-{n}": "x" for n in range(1000)})), 431),
    ("an address of 10 KB", push("6" * 10_240), 414),
    (
        "length and chunks",
        lambda api: api.raw(webhook_head(None, **{"Content-Length": "5"}) + b"0\r\n\r\n"),
        400,
    ),
    (
        "two lengths",
        lambda api: api.raw(head("POST", WEBHOOK, {"Content-Length": "5\r\nContent-Length: 6"})),
        400,
    ),
    ("a length with a sign", lambda api: api.raw(head("POST", WEBHOOK, {"Content-Length": "+5"})), 400),
    (
        "chunks by another name",
        lambda api: api.raw(head("POST", WEBHOOK, {"Transfer-Encoding": "xchunked"})),
        400,
    ),
    ("a bad chunk", lambda api: api.raw(webhook_head(None) + b"zz\r\n{}\r\n0\r\n\r\n"), 400),
    ("a blank before the colon", lambda api: api.raw(b"GET / HTTP/1.1\r\nX-API-Key : x\r\n\r\n"), 400),
    ("no HTTP", lambda api: api.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 400),
    ("another protocol", lambda api: api.raw(b"HELO there\r\n\r\n"), 400),
    # Addresses and methods.
    ("fetching by HEAD", asked("HEAD", "/api/external/fetch"), 405),
    ("asking what is allowed", asked("OPTIONS", WEBHOOK), 405),
    ("a browser's question", asked("OPTIONS", "/api/external/fetch", key=None), 405),
    ("deleting", asked("DELETE", STATUS), 405),
    ("tracing", asked("TRACE", STATUS), 405),
    ("getting a webhook", asked("GET", WEBHOOK), 405),
    ("an unknown address", asked("GET", "/"), 404),
    ("a slash too many", asked("GET", f"{STATUS}/"), 404),
    ("no documentation pages", asked("GET", "/docs"), 404),
    ("a path that climbs", lambda api: api.raw(head("GET", "/api/external/../../etc/passwd")), 404),
    ("an unknown event", asked("GET", f"{WEBHOOK}/no-such-event"), 404),
    ("an event of odd characters", asked("GET", f"{WEBHOOK}/%00%ff%0d%0a"), 404),
    # Pushes.
    ("push NUL", push("%00"), 422),
    ("push a line break", push("628%0d%0aX-Evil:%201"), 422),
    ("push another place", push("..%2f..%2fstatus"), 404),
    ("push an emoji", push("%F0%9F%98%80"), 422),
    ("push bad UTF-8", push("%ff%fe"), 422),
    ("push a long id", push("6" * 4000), 422),
    ("push nobody", push("628999999999"), 404),
    ("push SQL", push("'%20OR%201=1%20--"), 404),
    ("push a wildcard", push("%25"), 404),
    ("push no id", push(""), 404),
    # Names of events.
    ("a name of 256 characters", body(BODY, **{"Idempotency-Key": "x" * 256}), 400),
    ("an empty name", body(BODY, **{"webhook-id": ""}), 400),
    ("a name with a blank", body(BODY, **{"webhook-id": "a b"}), 400),
    (
        "two names",
        lambda api: api.raw(webhook_head(len(BODY), **{"webhook-id": "a\r\nwebhook-id: b"}) + BODY),
        400,
    ),
]


@pytest.mark.parametrize("send, expected", [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_it_is_refused(shared: Served, send: Callable[[Served], Refused], expected: int) -> None:
    """Refused with a problem document that repeats nothing, nothing is stored, and others are served."""
    before = shared.rows()
    answer = send(shared)
    status = answer.status if isinstance(answer, Reply) else answer.status_code
    content = answer.body if isinstance(answer, Reply) else answer.content
    assert status == expected
    if content:  # none after HEAD
        problem = json.loads(content)
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem.keys() >= {"type", "title", "status", "detail"}
        assert (problem["status"], problem["success"]) == (expected, False)
        assert not any(text in content for text in (SECRET.encode(), KEY.encode(), b"Budi", b"628"))
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers
    assert shared.rows() == before
    assert shared.ask("GET", "/healthz", key=None).json() == {"status": "ok"}


def test_every_unproved_sender_gets_the_same_bytes(shared: Served) -> None:
    """A missing key, a wrong one, a wrong secret: nothing in the answer tells which it was."""
    unproved = [send(shared) for _, send, status in TABLE if status == 401]
    bodies = {answer.body if isinstance(answer, Reply) else answer.content for answer in unproved}
    names = {frozenset(name.lower() for name in answer.headers) for answer in unproved}
    assert len(unproved) > 30
    assert len(bodies) == 1
    assert len({names_of - {"connection"} for names_of in names}) == 1
    assert all(answer.headers["WWW-Authenticate".lower()] == "ApiKey" for answer in unproved)


def test_a_method_that_is_not_taken_hears_which_are(shared: Served) -> None:
    """405 names the methods of the address."""
    assert shared.ask("HEAD", "/api/external/fetch").headers["Allow"] == "GET, POST"
    assert shared.ask("PUT", WEBHOOK).headers["Allow"] == "POST"
    assert shared.ask("PATCH", STATUS).headers["Allow"] == "GET, HEAD"


def test_one_request_is_one_request(shared: Served) -> None:
    """What follows a body that was announced too short is no second request that slips in."""
    before = shared.rows()
    smuggled = (
        head("POST", WEBHOOK, {"Content-Type": "application/json", "Content-Length": str(len(BODY))}) + BODY
    )
    answer = shared.raw(
        head("POST", WEBHOOK, {"Content-Length": str(len(smuggled)), "Transfer-Encoding": "chunked"}),
        b"0\r\n\r\n",
        smuggled,
    )
    assert (answer.status, answer.rest) == (400, b"")
    assert shared.rows() == before


def test_unknown_fields_reach_no_column(shared: Served) -> None:
    """Only what the mapping names gets into a contact: no id, owner, time or flag of ours."""
    odd = {
        "id": "evil",
        "pic": "evil",
        "created_at": "1999-01-01T00:00:00Z",
        "archived_at": "x",
        "__proto__": {"a": 1},
    }
    answer = shared.post({"phone": "628777777777", "name": "Sari", **odd}).json()
    shared.service.apply_events()
    row = shared.sql(
        "SELECT id, nama, pic, custom, archived_at FROM contacts WHERE id = :id", id=answer["userId"]
    )
    assert row == [("628777777777@c.us", "Sari", None, "{}", None)]
    assert shared.sql("SELECT count(*) FROM contacts WHERE created_at < '2000'") == [(0,)]


@pytest.mark.parametrize(
    "text", ["' OR 1=1 --", "\\' OR", "%", "_", ";DROP TABLE contacts", "=1+1", "\u202eevil"]
)
def test_text_is_text(shared: Served, text: str) -> None:
    """What would be code elsewhere is stored as the characters it is."""
    answer = shared.post({"phone": "628666666666", "name": text}).json()
    assert answer["success"] is True
    shared.service.apply_events()
    assert shared.sql("SELECT nama FROM contacts WHERE id = '628666666666@c.us'") == [(text,)]


UNSTORABLE: list[tuple[str, Callable[[Served], Refused]]] = [
    ("NUL in a value", with_value('"a\\u0000b"')),
    ("NUL in a key", body(f'{{"secret":"{SECRET}","phone":"628111111111","a\\u0000":1}}')),
    ("NUL inside", with_value('[{"a":["\\u0000"]}]', "extra")),
    ("half a character", with_value('"\\ud800"')),
    ("half a character in a key", body(f'{{"secret":"{SECRET}","phone":"628111111111","\\udc00":1}}')),
    ("half a character in the id", with_value('"\\ud83d"', "whatsapp_id")),
]


@pytest.mark.parametrize("send", [pytest.param(send, id=name) for name, send in UNSTORABLE])
def test_what_no_database_holds_is_kept_as_rejected(
    shared: Served, send: Callable[[Served], Refused]
) -> None:
    """Escaped, under an id that the answer names; no contact is made of it."""
    events, contacts = shared.rows()
    answer = send(shared)
    assert isinstance(answer, requests.Response)
    assert answer.status_code == 422
    assert list(answer.json()["reasons"].values()) == ["holds a character that cannot be stored"]
    assert shared.rows() == (events + 1, contacts)
    found = shared.ask("GET", f"{WEBHOOK}/{answer.json()['eventId']}").json()
    assert found["status"] == "rejected"


def test_one_that_no_database_holds_stops_no_other(shared: Served) -> None:
    """The others of its list land."""
    events, _ = shared.rows()
    names = ["Ani", "B\0", "Cici", "\ud800"]
    records = [{"secret": SECRET, "phone": f"62811300000{n}", "name": name} for n, name in enumerate(names)]
    answer = shared.post(records, secret=None).json()
    assert [each["status"] for each in answer["results"]] == ["landed", "rejected", "landed", "rejected"]
    assert shared.rows()[0] == events + 4
