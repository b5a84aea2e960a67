"""Writing in batches: every row has its own result, and success is never assumed for any."""

from __future__ import annotations

from typing import Any

import pytest

from crm_pipeline.connectors.base import CrmRefusedError, WriteStatus
from crm_pipeline_tests.connectors.conftest import Connect, Serve
from crm_pipeline_tests.connectors.servers import CUT, Reply, Seen, reply, script
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
    """A batch of PUTs reads each record, merges row by row, and carries the id where it is wanted."""
    now = reply(200, {"id": "7", "notes": "n", "meta": {"a": 1}})
    server = serve(script(now, reply(200, [{"status": 200}])))
    writing = {"batch_update": {"path": "/batch", "method": "PUT", "id_field": "meta.key"}}
    results = connector(server.url, writing=writing).write([update("7")])
    assert statuses(results) == [WRITTEN]
    row = {"id": "7", "notes": "n", "name": "budi", "meta": {"a": 1, "key": "7"}}
    assert server.seen[1].json == [row]


def test_status_of_a_row_does_not_become_a_field(serve: Serve, connector: Connect) -> None:
    """A row that mixes its status code with the record's fields shows the record without it."""
    row = {"status": 200, "id": "1", "name": "budi"}
    server = serve(script(reply(200, {"results": [row]})))
    (result,) = connector(server.url, writing=BATCH).write([update("1")])
    assert result.record is not None
    assert result.record.payload == {"id": "1", "name": "budi"}
