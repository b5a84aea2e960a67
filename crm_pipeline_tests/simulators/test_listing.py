"""Listing contacts: every way of paging, windows of change, lookups."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from crm_pipeline.simulators.generic import CONTACTS_PATH, CrmOptions, GenericCrm, create_app
from crm_pipeline.simulators.options import ENVELOPES, STYLES
from crm_pipeline.simulators.serve import running
from crm_pipeline_tests.simulators.client import Client, at
from crm_pipeline_tests.simulators.conftest import Serve

NOW = datetime(2026, 1, 5, 10, tzinfo=UTC)
COUNT = 25


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A CRM that nobody changes."""
    crm = GenericCrm.seeded(COUNT, clock=lambda: NOW)
    with running(create_app(crm)) as base:
        found = Client(base, crm)
        yield found
        found.session.close()


def pages(client: Client, style: str, envelope: str, **params: Any) -> Iterator[requests.Response]:
    """Walk a listing to its end, ten records a page, by what the style offers."""
    params |= {"pagination": style, "envelope": envelope, "limit": 10}
    shape = ENVELOPES[envelope]
    if style in {"next_link", "link_header"}:
        yield from client.links(client.page(**params), shape.next if style == "next_link" else "Link")
        return
    page, seen = client.page(**params), 0
    follow: dict[str, Any]
    while True:
        yield page
        rows = at(page.json(), shape.records)
        seen += len(rows)
        match style:
            case "page":
                follow = {"page": seen // 10 + 1} if len(rows) == 10 else {}
            case "offset":
                follow = {"offset": seen} if len(rows) == 10 else {}
            case "cursor" | "header_cursor":
                header = page.headers.get("X-Next-Cursor")
                cursor = header if style == "header_cursor" else at(page.json(), shape.cursor)
                follow = {"cursor": cursor} if cursor else {}
            case _:
                follow = {}
        if not follow:
            return
        page = client.page(**params, **follow)


FITTING = [
    (style, envelope)
    for style in STYLES
    for envelope in ENVELOPES
    if not (envelope == "array" and style in {"cursor", "next_link"})
]


@pytest.mark.parametrize("style, envelope", FITTING)
def test_every_style_hands_out_every_record_once(client: Client, style: str, envelope: str) -> None:
    """Walked to its end, a listing gives each record once, in the order of creation, in its envelope."""
    answers = list(pages(client, style, envelope))
    rows = [row for answer in answers for row in at(answer.json(), ENVELOPES[envelope].records)]
    if envelope == "jsonapi":
        rows = [{"id": row["id"], **row["attributes"]} for row in rows if row["type"] == "contacts"]
    assert rows == list(client.crm.records.values())
    assert len(answers) == (1 if style == "none" else 3)
    if envelope != "array":
        assert at(answers[0].json(), ENVELOPES[envelope].total) == COUNT


@pytest.mark.parametrize("style", [style for style in STYLES if style != "none"])
def test_a_window_of_change_comes_oldest_change_first(client: Client, style: str) -> None:
    """``updated_since`` includes its instant, ``updated_before`` does not; ties come by id."""
    ordered = sorted(client.crm.records.values(), key=lambda row: (row["updated_at"], row["id"]))
    since, before = ordered[3]["updated_at"], ordered[-2]["updated_at"]
    expected = [row for row in ordered if since <= row["updated_at"] < before]
    answers = pages(client, style, "records", updated_since=since, updated_before=before)
    assert [row for answer in answers for row in answer.json()["records"]] == expected


@pytest.mark.parametrize(
    "text",
    [
        "2025-12-26T10:00:00Z",
        "2025-12-26T17:00:00+07:00",
        "2025-12-26T10:00:00",
        "1766743200",
        "1766743200000",
    ],
)
def test_times_are_iso_or_epoch(client: Client, text: str) -> None:
    """One instant, however it is written, opens the same window."""
    expected = [
        row["id"] for row in client.crm.records.values() if row["updated_at"] >= "2025-12-26T10:00:00"
    ]
    found = client.page(updated_since=text).json()["records"]
    assert 0 < len(expected) < COUNT
    assert sorted(row["id"] for row in found) == sorted(expected)


@pytest.mark.parametrize(
    "params",
    [
        {"updated_since": "yesterday"},
        {"updated_before": "1e400"},
        {"page": "0"},
        {"offset": "-1"},
        {"limit": "ten"},
        {"cursor": "not ours"},
        {"cursor": "WzEsMl0"},
        {"pagination": "magic"},
        {"envelope": "paper"},
        {"envelope": "array", "pagination": "cursor"},
    ],
)
def test_a_wrong_parameter_is_refused(client: Client, params: dict[str, str]) -> None:
    """400 with a reason, and no listing."""
    answer = client.page(**params)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_a_key_is_needed(client: Client) -> None:
    """Without the right bearer key every request is 401."""
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "sim-key"}):
        answer = requests.get(client.base + CONTACTS_PATH, headers=headers, timeout=5)
        assert answer.status_code == 401


def test_a_page_is_never_larger_than_the_maximum(serve: Serve) -> None:
    """A larger size is cut down, not refused."""
    client = serve(GenericCrm.seeded(30, options=CrmOptions(page_size=5, page_size_max=20)))
    assert len(client.page().json()["records"]) == 5
    assert len(client.page(limit=100).json()["records"]) == 20


def test_relative_links(serve: Serve) -> None:
    """A CRM may leave scheme and host out of its links."""
    client = serve(GenericCrm.seeded(3, options=CrmOptions(pagination="next_link", relative_links=True)))
    assert client.page(limit=2).json()["next"].startswith(f"{CONTACTS_PATH}?cursor=")


def test_a_cursor_survives_changes_between_pages(serve: Serve) -> None:
    """Records changed or deleted between two pages make no other record missing or double."""
    client = serve(GenericCrm.seeded(30))
    since = "2000-01-01T00:00:00Z"
    first = client.page(updated_since=since, limit=10).json()
    ids = [row["id"] for row in first["records"]]
    client.crm.edit(ids[0], notes="changed")
    client.crm.delete(ids[-1])
    rest = client.page(cursor=first["next_cursor"], limit=100).json()["records"]
    expected = set(client.crm.records) - set(ids) | {ids[0]}
    assert sorted(row["id"] for row in rest) == sorted(expected)


def test_lookup_finds_by_exact_value_after_the_index_caught_up(serve: Serve) -> None:
    """A new phone is found only once the search lag is over; one that was always there at once."""
    now = [NOW]
    crm = GenericCrm.seeded(5, clock=lambda: now[0], options=CrmOptions(search_lag=30))
    client = serve(crm)
    old = crm.records["100003"]
    assert client.page(phone=old["phone"]).json()["records"] == [old]
    assert client.page(phone="6281").json()["records"] == []
    new = crm.create(phone="6281009999999@c.us")
    assert client.page(phone=new["phone"]).json()["records"] == []
    now[0] += timedelta(seconds=31)
    crm.edit(new["id"], notes="the phone stays, so it is still found")
    assert [row["id"] for row in client.page(phone=new["phone"]).json()["records"]] == [new["id"]]
    assert crm.calls["lookup"] == 4
    assert crm.calls["list"] == 0
