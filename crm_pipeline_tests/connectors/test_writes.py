"""Writing to a CRM over real sockets: every write ends with what really became of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from crm_pipeline.connectors.base import CrmRefusedError, Write, WriteStatus
from crm_pipeline.jsonio import LONGEST_KEY
from crm_pipeline_tests.connectors.conftest import Connect, Serve
from crm_pipeline_tests.connectors.servers import CUT, Reply, closed_port, reply, script
from crm_pipeline_tests.connectors.writes import (
    FAILED,
    GONE,
    NO_CONTENT,
    REFUSED,
    UNKNOWN,
    WRITTEN,
    create,
    statuses,
    update,
)


@pytest.mark.parametrize(
    "raw,external_id,shown",
    [
        (reply(201, {"id": 9, "name": "budi"}), "9", True),
        (reply(200, {"data": {"id": "9", "name": "budi"}}), "9", True),
        (reply(201, {"success": True, "id": "9"}), "9", False),
        (reply(202, {"id": "9"}), "9", False),
        (reply(201, b"", Location="/api/contacts/a%2Fb"), "a/b", False),
        (reply(201, b"", Location="https://crm.example/api/contacts/9/"), "9", False),
        (b"HTTP/1.1 204 No Content\r\nLocation: /contacts/9\r\n\r\n", "9", False),
    ],
)
def test_created(raw: bytes, external_id: str, shown: bool, serve: Serve, connector: Connect) -> None:  # noqa: FBT001
    """A create is written with the new id, from the body or the Location; a record only when shown."""
    server = serve(script(raw))
    (result,) = connector(server.url + "/api").write([create("key-1")])
    assert (result.status, result.external_id) == (WRITTEN, external_id)
    assert (result.record is not None) is shown
    seen = server.seen[0]
    assert (seen.method, seen.path, seen.json) == ("POST", "/api", {"name": "budi"})
    assert seen.headers["idempotency-key"] == "key-1"
    assert seen.headers["content-type"] == "application/json"


@pytest.mark.parametrize("raw", [reply(201, b""), reply(200, {"success": True}), NO_CONTENT, reply(202, {})])
def test_created_without_an_id_is_unknown(raw: bytes, serve: Serve, connector: Connect) -> None:
    """A create whose id nobody tells must be found before anything else is done with it."""
    server = serve(script(raw))
    (result,) = connector(server.url).write([create()])
    assert (result.status, result.external_id) == (UNKNOWN, None)


@pytest.mark.parametrize(
    "raw,shown",
    [
        (reply(200, {"id": "a/b", "name": "budi", "x": 1}), True),
        (reply(200, {"record": {"id": "a/b", "name": "budi"}}), True),
        (reply(200, {"success": True}), False),
        (reply(200, b""), False),
        (reply(202, {}), False),
        (NO_CONTENT, False),
    ],
)
def test_patched(raw: bytes, shown: bool, serve: Serve, connector: Connect) -> None:  # noqa: FBT001
    """An update sends only the changes to the record's own encoded URL."""
    server = serve(script(raw))
    (result,) = connector(server.url + "/api").write([update("a/b", name="budi")])
    assert (result.status, result.external_id, result.record is not None) == (WRITTEN, "a/b", shown)
    seen = server.seen[0]
    assert (seen.method, seen.path, seen.json) == ("PATCH", "/api/a%2Fb", {"name": "budi"})
    assert "idempotency-key" not in seen.headers


PUT = {"update": {"method": "PUT", "path": "/{id}", "envelope": "data.contact"}}


def test_put_sends_the_whole_record_as_it_is_now(serve: Serve, connector: Connect) -> None:
    """A PUT is the record, read just before, with the changes merged into it, in the configured envelope."""
    now = {"id": "7", "address": {"city": "Solo", "zip": "57111"}, "notes": "n"}
    server = serve(script(reply(200, now), NO_CONTENT))
    (result,) = connector(server.url, writing=PUT).write([update("7", address={"city": "Bandung"})])
    assert result.status is WRITTEN
    whole = {"id": "7", "address": {"city": "Bandung", "zip": "57111"}, "notes": "n"}
    assert server.seen[1].json == {"data": {"contact": whole}}


SEEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_put_does_not_overwrite_what_was_not_seen(serve: Serve, connector: Connect) -> None:
    """The record has moved on since it was read: nothing is sent."""
    server = serve(script(reply(200, {"id": "7", "updated_at": "2026-01-02T03:04:06Z"})))
    (result,) = connector(server.url, writing=PUT).write([update("7", SEEN)])
    assert (result.status, len(server.seen)) == (WriteStatus.CHANGED, 1)


def test_a_change_can_say_what_it_expects(serve: Serve, connector: Connect) -> None:
    """If-Unmodified-Since goes along where the CRM knows it; 412 is CHANGED, not refused."""
    server = serve(script(reply(412)))
    (result,) = connector(server.url, writing={"if_unmodified_since": True}).write([update("7", SEEN)])
    assert result.status is WriteStatus.CHANGED
    assert server.seen[0].headers["if-unmodified-since"] == "Fri, 02 Jan 2026 03:04:05 GMT"


@pytest.mark.parametrize("raw,status", [(reply(404), GONE), (reply(500), FAILED), (reply(200, b""), FAILED)])
def test_put_is_not_sent_without_the_record(
    raw: bytes, status: WriteStatus, serve: Serve, connector: Connect
) -> None:
    """A record that cannot be read first is not written."""
    server = serve(script(raw))
    (result,) = connector(server.url, writing=PUT).write([update("7")])
    assert result.status is status
    assert {seen.method for seen in server.seen} == {"GET"}


@pytest.mark.parametrize(
    "code,of_create,of_update",
    [
        (400, REFUSED, REFUSED),
        (409, REFUSED, REFUSED),
        (412, REFUSED, WriteStatus.CHANGED),
        (413, REFUSED, REFUSED),
        (422, REFUSED, REFUSED),
        (423, FAILED, FAILED),
        (425, FAILED, FAILED),
        (429, FAILED, FAILED),
        (500, UNKNOWN, UNKNOWN),
        (502, UNKNOWN, UNKNOWN),
        (503, UNKNOWN, UNKNOWN),
        (504, UNKNOWN, UNKNOWN),
        (302, UNKNOWN, UNKNOWN),
        (408, UNKNOWN, UNKNOWN),
    ],
)
def test_statuses_of_single_writes(
    code: int, of_create: WriteStatus, of_update: WriteStatus, serve: Serve, connector: Connect
) -> None:
    """Each status of the CRM means one thing for a create and for an update."""
    server = serve(script(reply(code, {})))
    assert statuses(connector(server.url).write([create()])) == [of_create]
    assert statuses(connector(server.url).write([update()])) == [of_update]


@pytest.mark.parametrize("code", [404, 410])
def test_missing_record_is_gone(code: int, serve: Serve, connector: Connect) -> None:
    """An update of a record that is not there any more is told as such."""
    server = serve(script(reply(code)))
    (result,) = connector(server.url).write([update("7")])
    assert (result.status, result.external_id) == (GONE, "7")


def test_unavailable_with_retry_after_is_failed(serve: Serve, connector: Connect) -> None:
    """503 with Retry-After is a promise that nothing was done."""
    server = serve(script(reply(503, Retry_After="1")))
    assert statuses(connector(server.url).write([create()])) == [FAILED]
    assert len(server.seen) == 5


@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST"])
@pytest.mark.parametrize("answer", [CUT, [reply(200, {"id": 7})[:-2]], [b"nonsense\r\n\r\n"]])
def test_lost_answer_is_unknown(answer: Reply, method: str, serve: Serve, connector: Connect) -> None:
    """Cut after it was sent: nobody knows, and it is not sent again."""
    server = serve(lambda seen: reply(200, {"id": "7"}) if seen.method == "GET" else answer)
    made = connector(server.url, writing={"update": {"method": method, "path": "/{id}"}})
    write = create() if method == "POST" else update("7")
    assert statuses(made.write([write])) == [UNKNOWN]
    assert [seen.method for seen in server.seen].count(method) == 1


def test_no_connection_is_failed(connector: Connect) -> None:
    """Nothing was sent: all of them may be tried later."""
    made = connector(f"http://127.0.0.1:{closed_port()}")
    assert statuses(made.write([create("a"), update("7"), create("b")])) == [FAILED] * 3
    assert made.calls == 0


@pytest.mark.parametrize(
    "body,status",
    [
        ({"success": False, "error": "x"}, REFUSED),
        ({"error": {"code": "invalid"}}, REFUSED),
        ({"success": False, "code": 429}, FAILED),
        ({"success": False, "code": 404}, GONE),
        ({"error": {"code": 500}}, UNKNOWN),
    ],
)
def test_failure_in_the_body_of_a_success(
    body: Any, status: WriteStatus, serve: Serve, connector: Connect
) -> None:
    """Status 200 does not make a failure told in the body a success."""
    server = serve(script(reply(200, body)))
    assert statuses(connector(server.url).write([update()])) == [status]


def test_login_page_is_no_success(serve: Serve, connector: Connect) -> None:
    """200 with HTML came from somebody else than the CRM."""
    server = serve(script(reply(200, b"<html>", Content_Type="text/html")))
    assert statuses(connector(server.url).write([update()])) == [UNKNOWN]


@pytest.mark.parametrize(
    "raw,external_id",
    [
        (reply(409, {"error": {"code": "duplicate", "existing_id": 5}}), "5"),
        (reply(409, {"existing": {"id": "5"}}), "5"),
        (reply(409, {"message": "exists"}, Location="/contacts/5"), "5"),
        (reply(409, {"id": "error-123"}), None),
        (reply(409), None),
    ],
)
def test_conflict_names_the_record_in_the_way(
    raw: bytes, external_id: str | None, serve: Serve, connector: Connect
) -> None:
    """A refused create carries the id of the record it doubles, where the CRM says it plainly."""
    server = serve(script(raw))
    (result,) = connector(server.url).write([create()])
    assert (result.status, result.external_id) == (REFUSED, external_id)


def test_reasons_hold_codes_and_no_personal_data(serve: Serve, connector: Connect) -> None:
    """A reason names the CRM's codes and fields, not what was sent nor what the CRM says about it."""
    body = {
        "error": {"code": "VALIDATION_ERROR", "message": "phone +62811 of budi is taken"},
        "errors": [{"field": "phone_1", "code": "taken"}, {"field": "62811000111", "code": "budi"}],
        "type": "https://crm.example/errors/taken?phone=62811",
    }
    server = serve(script(reply(422, body)))
    (result,) = connector(server.url).write([create(name="Budi", phone="+62811")])
    assert result.reason == "the CRM does not take it (422: VALIDATION_ERROR, phone_1, taken)"


def test_refused_key_stops_everything(serve: Serve, connector: Connect) -> None:
    """401 at the first write raises, and no other write is sent."""
    server = serve(script(reply(401)))
    with pytest.raises(CrmRefusedError, match="401"):
        connector(server.url).write([create("a"), create("b")])
    assert len(server.seen) == 1


def test_key_refused_in_the_middle_fails_the_rest(serve: Serve, connector: Connect) -> None:
    """What was written stays written; the rest has failed without being sent."""
    server = serve(script(reply(201, {"id": 1}), reply(401)))
    results = connector(server.url).write([create("a"), create("b"), create("c")])
    assert statuses(results) == [WRITTEN, FAILED, FAILED]
    assert len(server.seen) == 2


def test_one_forbidden_record_does_not_stop_the_others(serve: Serve, connector: Connect) -> None:
    """A single 403 may be about that record: it has failed, and the others are written."""
    server = serve(lambda seen: reply(403) if seen.path == "/1" else NO_CONTENT)
    results = connector(server.url).write([update("1"), update("2"), update("3")])
    assert statuses(results) == [FAILED, WRITTEN, WRITTEN]


def test_forbidden_twice_is_about_us(serve: Serve, connector: Connect) -> None:
    """Two 403 in a row: the permission is missing, and nothing more is sent."""
    server = serve(script(reply(403)))
    with pytest.raises(CrmRefusedError, match="403"):
        connector(server.url).write([update("1"), update("2"), update("3")])
    assert len(server.seen) == 2


@pytest.mark.parametrize("code", [404, 405, 415, 501])
def test_wrong_address_of_creates_is_told(code: int, serve: Serve, connector: Connect) -> None:
    """A path or method that the CRM does not have is no reason to reject every record."""
    server = serve(script(reply(code)))
    with pytest.raises(CrmRefusedError, match=str(code)):
        connector(server.url).write([create("a"), create("b")])
    assert len(server.seen) == 1


def test_throttled_crm_is_left_alone(serve: Serve, connector: Connect) -> None:
    """After all repeats of one write were throttled the others are not even tried."""
    server = serve(script(reply(429, Retry_After="1")))
    results = connector(server.url, limits={"retries": 1}).write([create("a"), create("b")])
    assert statuses(results) == [FAILED, FAILED]
    assert len(server.seen) == 2


def test_hanging_crm_is_left_alone(serve: Serve, connector: Connect) -> None:
    """After some writes without an answer the others are not sent; one lost answer stops nothing."""
    server = serve(script(CUT, NO_CONTENT, CUT))
    results = connector(server.url).write([update(str(number)) for number in range(8)])
    assert statuses(results) == [UNKNOWN, WRITTEN, UNKNOWN, UNKNOWN, UNKNOWN, FAILED, FAILED, FAILED]


@pytest.mark.parametrize("code,sent", [(502, 3), (503, 3), (504, 3), (500, 8)])
def test_gateway_without_its_crm_is_left_alone(
    code: int, sent: int, serve: Serve, connector: Connect
) -> None:
    """Gateway errors in a row stop the rest; errors of the CRM itself may be about single records."""
    server = serve(script(reply(code)))
    results = connector(server.url).write([update(str(number)) for number in range(8)])
    assert statuses(results) == [UNKNOWN] * sent + [FAILED] * (8 - sent)
    assert len(server.seen) == sent


@pytest.mark.parametrize(
    "write",
    [update(".."), update(""), update("\ud800"), create(name="\ud800"), create(price=2**70)],
    ids=["dots", "empty", "surrogate-id", "surrogate", "huge"],
)
def test_what_cannot_be_sent_is_refused(write: Write, serve: Serve, connector: Connect) -> None:
    """An id or a value that no request can carry ends that write only."""
    server = serve(lambda seen: reply(201, {"id": 1}) if seen.method == "POST" else NO_CONTENT)
    results = connector(server.url).write([write, create("k2"), update("8")])
    assert statuses(results) == [REFUSED, WRITTEN, WRITTEN]
    assert len(server.seen) == 2


def test_a_record_made_under_an_id_that_cannot_be_kept_is_looked_for(
    serve: Serve, connector: Connect
) -> None:
    """Nobody could find it by that id again: it counts as not told."""
    server = serve(script(reply(201, {"id": "x" * (LONGEST_KEY + 1), "name": "a"})))
    assert statuses(connector(server.url).write([create(name="a")])) == [UNKNOWN]


@pytest.mark.parametrize("key", ["a b", "ключ", "x" * 300, "a\nb"])
def test_odd_keys_become_a_digest(key: str, serve: Serve, connector: Connect) -> None:
    """A key that no header can carry is sent as a digest, the same every time."""
    server = serve(script(reply(201, {"id": 1})))
    made = connector(server.url)
    made.write([create(key)])
    made.write([create(key)])
    first, second = (seen.headers["idempotency-key"] for seen in server.seen)
    assert first == second
    assert len(first) == 64
