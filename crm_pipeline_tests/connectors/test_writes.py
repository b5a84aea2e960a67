"""Writing to a CRM over real sockets: every write ends with what really became of it."""

from __future__ import annotations

from typing import Any

import pytest

from crm_pipeline.connectors.base import CrmRefusedError, Write, WriteResult, WriteStatus
from crm_pipeline_tests.connectors.conftest import Connect, Serve
from crm_pipeline_tests.connectors.servers import CUT, Reply, Seen, closed_port, reply, script

WRITTEN, REFUSED, FAILED = WriteStatus.WRITTEN, WriteStatus.REFUSED, WriteStatus.FAILED
GONE, UNKNOWN = WriteStatus.GONE, WriteStatus.UNKNOWN
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


def create(key: str = "k1", **changes: Any) -> Write:
    """A new record."""
    return Write(key, None, changes or {"name": "budi"})


def update(external_id: str = "7", known: dict[str, Any] | None = None, **changes: Any) -> Write:
    """A changed record."""
    return Write(f"u{external_id}", external_id, changes or {"name": "budi"}, known)


def statuses(results: list[WriteResult]) -> list[WriteStatus]:
    """What became of each."""
    return [result.status for result in results]


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
    (result,) = connector(server.url + "/api").write([update("a/b", {"old": 1}, name="budi")])
    assert (result.status, result.external_id, result.record is not None) == (WRITTEN, "a/b", shown)
    seen = server.seen[0]
    assert (seen.method, seen.path, seen.json) == ("PATCH", "/api/a%2Fb", {"name": "budi"})
    assert "idempotency-key" not in seen.headers


PUT = {"update": {"method": "PUT", "path": "/{id}", "envelope": "data.contact"}}


def test_put_sends_the_whole_record(serve: Serve, connector: Connect) -> None:
    """A PUT is what is known with the changes merged into it, in the configured envelope."""
    server = serve(script(NO_CONTENT))
    known = {"id": "7", "address": {"city": "Solo", "zip": "57111"}, "notes": "n"}
    (result,) = connector(server.url, writing=PUT).write([update("7", known, address={"city": "Bandung"})])
    assert result.status is WRITTEN
    whole = {"id": "7", "address": {"city": "Bandung", "zip": "57111"}, "notes": "n"}
    assert server.seen[0].json == {"data": {"contact": whole}}


def test_put_reads_first_what_is_not_known(serve: Serve, connector: Connect) -> None:
    """Without the record a PUT would erase the rest of it: it is read before."""
    server = serve(script(reply(200, {"id": "7", "notes": "n"}), NO_CONTENT))
    (result,) = connector(server.url, writing=PUT).write([update("7")])
    assert result.status is WRITTEN
    assert server.seen[1].json == {"data": {"contact": {"id": "7", "notes": "n", "name": "budi"}}}


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
        (412, REFUSED, REFUSED),
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
    server = serve(lambda _seen: answer)
    made = connector(server.url, writing={"update": {"method": method, "path": "/{id}"}})
    write = create() if method == "POST" else update("7", {})
    assert statuses(made.write([write])) == [UNKNOWN]
    assert len(server.seen) == 1


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


def test_singles_have_a_modest_batch_size(connector: Connect) -> None:
    """Without batches a call takes a few writes; with them as many as the larger batch."""
    assert 1 < connector("http://127.0.0.1:9").batch_size <= 50
    writing = {"batch_create": {"path": "/b", "size": 10}, "batch_update": {"path": "/b", "size": 200}}
    assert connector("http://127.0.0.1:9", writing=writing).batch_size == 200


BATCH = {
    "batch_create": {"path": "/batch", "envelope": "records", "size": 4},
    "batch_update": {"path": "/batch", "envelope": "records", "size": 4, "method": "PATCH"},
}


def batch_crm(bad: str = "bad", code: int = 422) -> Any:
    """A CRM that judges row by row, and refuses a batch as a whole where ``code`` is given."""

    def answer(seen: Seen) -> Reply:
        items = seen.json["records"]
        if code and any(item["name"] == bad for item in items):
            return reply(code, {"error": {"code": "invalid"}})
        rows = []
        for item in items:
            record = {"id": f"new-{item['name']}", **item}
            rows.append({"status": 200 if "id" in item else 201, "id": record["id"], "record": record})
        return reply(200, {"results": rows})

    return answer


def test_batches_are_cut_to_size_and_answered_in_order(serve: Serve, connector: Connect) -> None:
    """Creates and updates go in batches of their own; results come in the order given."""
    server = serve(batch_crm())
    writes = [w for n in range(5) for w in (create(f"c{n}", name=f"c{n}"), update(str(n), name=f"u{n}"))]
    results = connector(server.url, writing=BATCH).write(writes)
    assert statuses(results) == [WRITTEN] * 10
    assert [result.external_id for result in results[:4]] == ["new-c0", "0", "new-c1", "1"]
    assert [len(seen.json["records"]) for seen in server.seen] == [4, 1, 4, 1]
    assert server.seen[2].json["records"][0] == {"name": "u0", "id": "0"}
    assert [result.record.payload["name"] for result in results if result.record] == [
        write.changes["name"] for write in writes
    ]


def test_batch_key_is_the_same_for_the_same_writes(serve: Serve, connector: Connect) -> None:
    """A repeated batch of creates repeats its key, another batch has another."""
    server = serve(batch_crm())
    made = connector(server.url, writing=BATCH)
    for keys in ("ab", "ab", "ac"):
        made.write([create(key, name=key) for key in keys])
    first, second, third = (seen.headers["idempotency-key"] for seen in server.seen)
    assert first == second != third


@pytest.mark.parametrize("code", [400, 409, 413, 422])
def test_refused_batch_is_cut_down_to_the_guilty(code: int, serve: Serve, connector: Connect) -> None:
    """One bad row refuses its batch; alone it is refused, and the others are written."""
    server = serve(batch_crm(code=code))
    writes = [create(f"k{n}", name="bad" if n == 2 else f"n{n}") for n in range(4)]
    results = connector(server.url, writing=BATCH).write(writes)
    assert statuses(results) == [WRITTEN, WRITTEN, REFUSED, WRITTEN]
    assert f"({code}: invalid)" in results[2].reason
    assert len(server.seen) == 5


def test_row_statuses(serve: Serve, connector: Connect) -> None:
    """Each row of an answer is judged by its own status, a code, a word or a boolean."""
    rows: list[tuple[dict[str, Any], WriteStatus]] = [
        ({"status": 200, "id": "0"}, WRITTEN),
        ({"status": "updated", "id": "1"}, WRITTEN),
        ({"status": True, "id": "2"}, WRITTEN),
        ({"status": "200"}, WRITTEN),
        ({"id": "4", "name": "x"}, WRITTEN),
        ({"status": 404, "id": "5"}, GONE),
        ({"status": "not_found"}, GONE),
        ({"status": 422, "error": {"code": "x"}}, REFUSED),
        ({"status": "error"}, REFUSED),
        ({"status": False}, REFUSED),
        ({"id": "10", "error": "no"}, REFUSED),
        ({"success": False, "id": "11"}, REFUSED),
        ({"status": 429}, FAILED),
        ({"status": 401}, FAILED),
        ({"status": 500}, UNKNOWN),
        ({}, UNKNOWN),
        ({"message": "hello"}, UNKNOWN),
        ({"status": 200, "error": "but no"}, UNKNOWN),
        ({"status": 302}, UNKNOWN),
    ]
    odd: list[Any] = [None, "ok", 5, []]
    server = serve(script(reply(207, {"results": [row for row, _ in rows] + odd})))
    writing = {"batch_update": {"path": "/batch", "size": 100}}
    writes = [update(str(number)) for number in range(len(rows) + len(odd))]
    results = connector(server.url, writing=writing).write(writes)
    assert statuses(results) == [status for _, status in rows] + [UNKNOWN] * len(odd)
    assert [result.external_id for result in results] == [write.external_id for write in writes]


@pytest.mark.parametrize(
    "body",
    [
        {"results": [{"status": 200, "id": "1"}]},
        {"results": [{"status": 200}] * 3},
        {"results": []},
        {"success": True},
        {"success": False},
        {"results": [{"status": 200, "id": "1"}, {"status": 200, "id": "9"}]},
        {"results": [{"status": 200, "id": "1"}, {"status": 200, "id": "1"}]},
        {"results": [{"status": 200, "id": "2"}, {"status": 200}]},
    ],
)
def test_batch_answer_that_does_not_fit_is_unknown(body: Any, serve: Serve, connector: Connect) -> None:
    """Too few, too many, of other records, or none at all: success is not assumed for anyone."""
    server = serve(script(reply(200, body)))
    results = connector(server.url, writing=BATCH).write([update("1"), update("2")])
    assert statuses(results) == [UNKNOWN, UNKNOWN]
    assert len(server.seen) == 1


def test_shuffled_results_are_matched_by_id(serve: Serve, connector: Connect) -> None:
    """Results in another order belong to the records they name."""
    rows = [{"status": 404, "id": "3"}, {"status": 200, "id": "1"}, {"status": 422, "id": "2"}]
    server = serve(script(reply(200, {"results": rows})))
    results = connector(server.url, writing=BATCH).write([update("1"), update("2"), update("3")])
    assert statuses(results) == [WRITTEN, REFUSED, GONE]


def test_created_row_without_an_id_is_unknown(serve: Serve, connector: Connect) -> None:
    """A row that was created under an id nobody tells has to be found."""
    server = serve(script(reply(200, {"results": [{"status": 201}, {"status": 201, "id": "5"}]})))
    results = connector(server.url, writing=BATCH).write([create("a"), create("b")])
    assert [(result.status, result.external_id) for result in results] == [(UNKNOWN, None), (WRITTEN, "5")]


def test_refused_batch_that_lists_its_rows_is_not_cut(serve: Serve, connector: Connect) -> None:
    """A 400 that says what became of each row is read; a row it only echoes is not taken for written."""
    rows = [{"code": "x", "status": "error"}, {"id": "2"}, {"status": "success", "id": "3"}]
    server = serve(script(reply(400, {"data": rows})))
    results = connector(server.url, writing=BATCH).write([update("1"), update("2"), update("3")])
    assert statuses(results) == [REFUSED, UNKNOWN, WRITTEN]
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "answer,status",
    [
        (CUT, UNKNOWN),
        (reply(500), UNKNOWN),
        (reply(429, Retry_After="0"), FAILED),
        (reply(503, Retry_After="0"), FAILED),
        (reply(200, b"<html>", Content_Type="text/html"), UNKNOWN),
        (NO_CONTENT, UNKNOWN),
    ],
)
def test_failure_of_a_whole_batch(
    answer: Reply, status: WriteStatus, serve: Serve, connector: Connect
) -> None:
    """What is not said of a batch's rows holds for all of them."""
    server = serve(script(answer))
    results = connector(server.url, writing=BATCH).write([update("1"), update("2")])
    assert statuses(results) == [status, status]


@pytest.mark.parametrize("code", [401, 403, 404, 405])
def test_batch_address_or_key_refused_is_told(code: int, serve: Serve, connector: Connect) -> None:
    """A batch the CRM does not offer, or not to us, says nothing about its records."""
    server = serve(script(reply(code)))
    with pytest.raises(CrmRefusedError, match=str(code)):
        connector(server.url, writing=BATCH).write([update("1"), update("2")])
    assert len(server.seen) == 1


def test_unsendable_row_does_not_cost_its_batch(serve: Serve, connector: Connect) -> None:
    """A value JSON cannot carry refuses its own row."""
    server = serve(batch_crm())
    results = connector(server.url, writing=BATCH).write(
        [create("a", name="a"), create("b", name="\ud800"), create("c", name="c")]
    )
    assert statuses(results) == [WRITTEN, REFUSED, WRITTEN]


def test_put_batch_sends_whole_records(serve: Serve, connector: Connect) -> None:
    """A batch of PUTs merges what is known, row by row, and carries the id where it is wanted."""
    server = serve(script(reply(200, [{"status": 200}])))
    writing = {"batch_update": {"path": "/batch", "method": "PUT", "id_field": "meta.key"}}
    results = connector(server.url, writing=writing).write([update("7", {"notes": "n", "meta": {"a": 1}})])
    assert statuses(results) == [WRITTEN]
    assert server.seen[0].json == [{"notes": "n", "name": "budi", "meta": {"a": 1, "key": "7"}}]


def test_status_of_a_row_does_not_become_a_field(serve: Serve, connector: Connect) -> None:
    """A row that mixes its status code with the record's fields shows the record without it."""
    row = {"status": 200, "id": "1", "name": "budi"}
    server = serve(script(reply(200, {"results": [row]})))
    (result,) = connector(server.url, writing=BATCH).write([update("1")])
    assert result.record is not None
    assert result.record.payload == {"id": "1", "name": "budi"}
