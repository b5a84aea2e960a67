"""Answers no vendor should give: an error of our own kind, or records to be judged; never a crash."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest

from crm_pipeline.connectors import connect
from crm_pipeline.connectors.base import Connector, ConnectorError, Window, Write, WriteResult, WriteStatus
from crm_pipeline_tests.connectors.servers import Reply, Seen, reply, serving
from crm_pipeline_tests.connectors.vendors import preset

SINCE = Window(since=datetime(2026, 1, 1, tzinfo=UTC))
ID = {"hubspot": "1", "salesforce": "003xx0000000001AAA", "zoho": "5550000001"}
OTHER_ID = {"hubspot": "77", "salesforce": "003xx0000000077AAA", "zoho": "5550000077"}
LISTS = {"hubspot": "results", "salesforce": "records", "zoho": "data"}
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    2**70,
    1.5,
    "",
    "x",
    "\ud800",
    "a\0b",
    "' OR Id != '",
    [],
    [[]],
    {},
    {"id": {}},
]
"""Values of all kinds, for every place."""


def odd_records(kind: str) -> Iterator[Any]:
    """A record with one thing wrong."""
    yield from ODD
    for value in ODD:
        if kind == "hubspot":
            yield {"id": value, "properties": {"chat_id": "628110000001"}}
            yield {"id": "1", "properties": value, "updatedAt": value, "archived": value, "archivedAt": value}
            yield {"id": "1", "properties": {"lastmodifieddate": value, "hs_merged_object_ids": value}}
        elif kind == "salesforce":
            yield {"Id": value, "attributes": value, "SystemModstamp": value}
            yield {"Id": ID[kind], "IsDeleted": value, "MasterRecordId": value, "LastName": value}
        else:
            yield {"id": value, "Modified_Time": value}
            yield {"id": ID[kind], "deleted_time": value, "Account_Name": value}


def odd_pages(kind: str) -> Iterator[Any]:
    """A listing with one thing wrong."""
    key = LISTS[kind]
    yield from ODD
    yield from ({key: value} for value in ODD)
    yield from ({key: [record]} for record in odd_records(kind))
    for value in ODD:
        yield {
            key: [],
            "paging": value,
            "done": value,
            "nextRecordsUrl": value,
            "info": value,
            "total": value,
        }
        yield {key: [], "paging": {"next": value}, "done": False, "info": {"more_records": value}}
        more = {"more_records": True, "next_page_token": value, "page": value}
        yield {key: [], "paging": {"next": {"after": value}}, "info": more}


RAW: list[bytes] = [
    b"",
    b"<!doctype html><title>Sign in</title>",
    b'{"results": [',
    b"\xff\xfe",
    b"\0",
    b"[" * 100_000,
    b'{"results": [], "records": [], "data": []} trailing',
    b'{"results": [{"id": "1"}, {"id": ' + b"9" * 10_000 + b"}]}",
]


def answers(kind: str) -> Iterator[bytes]:
    """Every body."""
    yield from RAW
    for page in odd_pages(kind):
        yield reply(200, json.dumps(page).encode())


def uses(made: Connector, kind: str) -> list[Callable[[], object]]:
    """Everything a connector can be asked for."""
    write = Write("k", OTHER_ID[kind], {"notes": "x"})
    new = Write("n", None, {"chat_id": "62811@c.us", "Chat_Id__c": "62811@c.us", "Chat_Id": "62811@c.us"})
    return [
        lambda: list(islice(made.pages(Window()), 5)),
        lambda: list(islice(made.pages(SINCE), 5)),
        lambda: made.read([ID[kind]]),
        lambda: made.find("' OR Id != '"),
        made.schema,
        made.refuses_writes,
        lambda: made.write([write, new]),
    ]


def outcome(use: Callable[[], object]) -> str:
    """What is wrong with how a call ended; empty for nothing."""
    try:
        result = use()
    except ConnectorError as error:
        return "quotes a value" if "OR Id" in str(error) else ""
    except Exception as error:  # noqa: BLE001 - any other is what is looked for
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        return f"{type(error).__name__}: {error} at {where.tb_frame.f_code.co_qualname if where else ''}"
    written = isinstance(result, list) and any(
        isinstance(each, WriteResult) and each.status is WriteStatus.WRITTEN for each in result
    )
    return "counts as written" if written else ""


@pytest.mark.parametrize("kind", sorted(ID))
def test_no_answer_crashes_a_connector(kind: str) -> None:
    """Only the connector's own errors come out, and no write counts as done by mistake."""
    body = [b""]

    def answer(_seen: Seen) -> Reply:
        return body[0] if body[0].startswith(b"HTTP") else reply(200, body[0])

    wrong: dict[str, bytes] = {}
    with serving(answer) as server:
        connection = preset(kind, server.url, limits={"retries": 0})
        made = connect(connection, "key", sleep=lambda _: None)
        for body[0] in answers(kind):
            for use in uses(made, kind):
                told = outcome(use)
                if told:
                    wrong.setdefault(told, body[0][-200:])
        made.close()
    assert wrong == {}
