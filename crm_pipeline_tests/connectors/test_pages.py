"""Reading a CRM over real sockets: pages, records by id, and lookups."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from crm_pipeline.connection import Connection
from crm_pipeline.connectors import connect
from crm_pipeline.connectors.base import (
    Connector,
    CrmAnswerError,
    CrmRefusedError,
    CrmUnavailableError,
    Record,
    ResumeError,
    Window,
)
from crm_pipeline_tests.connectors.conftest import KEY, Connect, Serve
from crm_pipeline_tests.connectors.servers import CUT, Reply, Seen, reply, script

ALL = Window()
DAY = Window(datetime(2026, 1, 30, tzinfo=UTC), datetime(2026, 1, 31, tzinfo=UTC))


def records_of(connector: Connector, window: Window = ALL) -> list[Record]:
    """Read a window to its end."""
    return [record for page in connector.pages(window) for record in page.records]


def cursor_crm(seen: Seen) -> Reply:
    """Three pages of two records by cursor."""
    start = int(seen.query.get("cursor", "0"))
    rows = [{"id": number, "name": f"n{number}"} for number in range(start, start + 2)]
    return reply(200, {"records": rows, "next_cursor": str(start + 2) if start < 4 else None})


def test_pages_are_read_lazily_and_in_order(serve: Serve, connector: Connect) -> None:
    """The next page is asked for only when it is wanted."""
    server = serve(cursor_crm)
    pages = connector(server.url).pages(ALL)
    first = next(pages)
    assert [record.external_id for record in first.records] == ["0", "1"]
    assert len(server.seen) == 1
    assert [record.external_id for page in pages for record in page.records] == ["2", "3", "4", "5"]


def test_a_page_knows_its_times(serve: Serve, connector: Connect) -> None:
    """A page carries our clock from before the request, and the CRM's own."""
    server = serve(script(reply(200, [], Date="Sat, 31 Jan 2026 09:00:00 GMT")))
    before = datetime.now(UTC)
    (page,) = connector(server.url).pages(ALL)
    assert before <= page.read_at <= datetime.now(UTC)
    assert page.server_time == datetime(2026, 1, 31, 9, tzinfo=UTC)


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_unreadable_date_is_none(date: str, serve: Serve, connector: Connect) -> None:
    """A CRM without a readable clock has none."""
    server = serve(script(reply(200, [], Date=date)))
    assert next(connector(server.url).pages(ALL)).server_time is None


def test_listing_parameters_go_with_every_page(serve: Serve, connector: Connect) -> None:
    """Own parameters, page size, window and cursor are sent together."""
    server = serve(cursor_crm)
    made = connector(
        server.url + "/api",
        listing={
            "path": "/contacts",
            "params": {"view": "all"},
            "page_size": 2,
            "modified_since": {"param": "since", "format": "epoch"},
            "modified_before": {"param": "before"},
        },
        pagination={"size_param": "limit"},
    )
    assert len(records_of(made, DAY)) == 6
    always = {"view": "all", "limit": "2", "since": "1769731200", "before": "2026-01-31T00:00:00Z"}
    assert server.seen[0].path == "/api/contacts"
    assert server.seen[0].query == always
    assert server.seen[1].query == {**always, "cursor": "2"}


def test_window_is_cut_here_where_the_crm_cannot(serve: Serve, connector: Connect) -> None:
    """Records after the window are left out; those before it, or without a time, are not."""
    times = ["2026-01-29T00:00:00Z", "2026-01-30T23:59:59Z", "2026-01-31T00:00:00Z", None, "nonsense"]
    server = serve(script(reply(200, [{"id": n, "updated_at": time} for n, time in enumerate(times)])))
    made = connector(server.url)
    assert not made.reads_by_modified
    assert [record.external_id for record in records_of(made, DAY)] == ["0", "1", "3", "4"]
    assert server.seen[0].query == {}


def test_pull_resumes_in_another_process(serve: Serve, connector: Connect) -> None:
    """From the place of any page another connector reads the rest."""
    server = serve(cursor_crm)
    place = next(connector(server.url).pages(ALL)).next
    rest = connector(server.url).pages(ALL, json.loads(json.dumps(place)))
    assert [record.external_id for page in rest for record in page.records] == ["2", "3", "4", "5"]


@pytest.mark.parametrize("status", [400, 404, 410, 422])
def test_expired_place_is_a_resume_error(status: int, serve: Serve, connector: Connect) -> None:
    """A cursor that the CRM refuses at the first request starts the window again, later it does not."""
    server = serve(script(cursor_crm(Seen("GET", "/", {}, b"")), reply(status)))
    place = next(connector(server.url).pages(ALL)).next
    with pytest.raises(ResumeError):
        list(connector(server.url).pages(ALL, place))
    fresh = serve(script(cursor_crm(Seen("GET", "/", {}, b"")), reply(status)))
    with pytest.raises(CrmRefusedError):
        list(connector(fresh.url).pages(ALL))


def test_place_of_another_host_is_refused(serve: Serve, connector: Connect) -> None:
    """A stored link that does not belong to this CRM is never asked for."""
    server, other = serve(script(reply(200, []))), serve(script(reply(200, [])))
    place = {"way": ["next_link", "", "next", 0], "at": other.url, "pages": 1, "seen": 1}
    with pytest.raises(ResumeError):
        list(connector(server.url).pages(ALL, place))
    assert other.connections == 0


@pytest.mark.parametrize(
    "link",
    [
        "{other}/steal",
        "https://127.0.0.1:{port}/x",
        "//127.0.0.1:{other_port}/x",
        "http://user@127.0.0.1:{port}/x",
        "http://127.0.0.1:{port}.evil.tld/x",
        "http://127.0.0.1:{port}/api/../admin",
    ],
)
@pytest.mark.parametrize("place", ["body", "header"])
def test_foreign_next_link_gets_nothing(place: str, link: str, serve: Serve, connector: Connect) -> None:
    """A next link that leaves the CRM fails the pull; nobody sees a request, nobody sees the key."""
    other = serve(script(reply(200, [])))

    def answer(seen: Seen) -> Reply:
        port = seen.headers["host"].rpartition(":")[2]
        url = link.format(other=other.url, port=port, other_port=other.url.rpartition(":")[2])
        if place == "body":
            return reply(200, {"records": [{"id": 1}], "next": url})
        return reply(200, [{"id": 1}], Link=f'<{url}>; rel="next"')

    server = serve(answer)
    with pytest.raises(CrmAnswerError, match="refused"):
        list(connector(server.url).pages(ALL))
    assert (len(server.seen), other.connections) == (1, 0)


def test_key_in_the_query_is_not_kept_with_the_place(serve: Serve, connector: Connect) -> None:
    """A CRM that repeats the key in its next link does not get it into our database."""

    def answer(seen: Seen) -> Reply:
        more = "page" not in seen.query
        link = f"/contacts?page=2&key={seen.query['key']}" if more else None
        return reply(200, {"records": [{"id": int(more)}], "links": {"next": link}})

    server = serve(answer)
    pages = list(connector(server.url, auth={"kind": "query", "param": "key"}).pages(ALL))
    assert pages[0].next is not None
    assert KEY not in json.dumps(pages[0].next)
    assert server.seen[1].query == {"page": "2", "key": KEY}


@pytest.mark.parametrize(
    "raw,reason",
    [
        (reply(200, b"<html>Please log in</html>", Content_Type="text/html"), "login page"),
        (reply(200, b""), "empty"),
        (reply(200, {}), "no list of records"),
        (reply(200, b'{"records":[{"id":1}'), "not JSON"),
        (reply(200, b"[]", Content_Type="text/plain"), "not JSON"),
        (reply(200, {"success": False, "error": "s3cret"}), "error in the body"),
        (reply(200, {"records": [], "error": {"message": "s3cret"}}), "error in the body"),
        (reply(200, b"[" * 2000), "not JSON"),
        (reply(200, b"[" * 100 + b"]" * 100), "deeper"),
        (reply(200, b'[{"id":1,"price":NaN}]'), "not JSON"),
        (reply(307, Location="http://127.0.0.1:9/"), "redirects"),
    ],
)
def test_broken_answers_are_never_empty_pages(
    raw: bytes, reason: str, serve: Serve, connector: Connect
) -> None:
    """Each wrong answer fails the pull with its plain reason."""
    server = serve(script(raw))
    with pytest.raises(CrmAnswerError, match=reason) as caught:
        list(connector(server.url).pages(ALL))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "answer,kind",
    [
        (reply(401), CrmRefusedError),
        (reply(403), CrmRefusedError),
        (reply(404), CrmRefusedError),
        (reply(429), CrmUnavailableError),
        (reply(500), CrmUnavailableError),
        (CUT, CrmUnavailableError),
    ],
)
def test_failures_have_their_kind(
    answer: Reply, kind: type[Exception], serve: Serve, connector: Connect
) -> None:
    """Refused and unavailable are told apart."""
    server = serve(script(answer))
    with pytest.raises(kind):
        list(connector(server.url).pages(ALL))


def test_no_content_is_an_empty_page(serve: Serve, connector: Connect) -> None:
    """204 says plainly that there is nothing."""
    server = serve(script(b"HTTP/1.1 204 No Content\r\n\r\n"))
    (page,) = connector(server.url).pages(ALL)
    assert (page.records, page.next) == ((), None)


def test_one_odd_record_does_not_lose_its_page(serve: Serve, connector: Connect) -> None:
    """A lone surrogate or a wrong byte stays in its own record, and the others are whole."""
    body = b'[{"id":1,"name":"a"},{"id":2,"name":"\\ud83d"},{"id":3,"name":"\xe9"},null,{"id":4}]'
    server = serve(script(reply(200, body)))
    records = records_of(connector(server.url))
    assert [record.external_id for record in records] == ["1", "2", "3", None, "4"]
    assert records[0].payload == {"id": 1, "name": "a"}


def test_ignored_page_number_fails_the_pull(serve: Serve, connector: Connect) -> None:
    """The same page for every number is an error after its first repetition."""
    server = serve(script(reply(200, {"records": [{"id": 1}, {"id": 2}], "request": "x"})))
    with pytest.raises(CrmAnswerError, match="same page"):
        list(connector(server.url, pagination={"style": "page"}).pages(ALL))
    assert len(server.seen) == 2


def test_same_records_with_new_times_are_another_page(serve: Serve, connector: Connect) -> None:
    """A record that changed while it was read may come twice."""
    pages = [
        {"records": [{"id": 1, "updated_at": "2026-01-31T09:00:00Z"}], "next_cursor": "a"},
        {"records": [{"id": 1, "updated_at": "2026-01-31T09:00:05Z"}], "next_cursor": None},
    ]
    server = serve(script(*[reply(200, page) for page in pages]))
    assert len(records_of(connector(server.url))) == 2


def test_read_by_id(serve: Serve, connector: Connect) -> None:
    """A call for each, in whatever order; missing ones are left out; an id is one encoded segment."""

    def answer(seen: Seen) -> Reply:
        if seen.path == "/api/gone":
            return reply(404, {"error": "not found"})
        return reply(200, {"data": {"id": "a/b", "name": "x"}})

    server = serve(answer)
    (record,) = connector(server.url + "/api").read(["a/b", "gone", ".."])
    assert (record.external_id, record.payload["name"]) == ("a/b", "x")
    assert {seen.path for seen in server.seen} == {"/api/a%2Fb", "/api/gone"}
    assert len(server.seen) == 2


def test_read_takes_the_asked_id_where_the_answer_has_none(serve: Serve, connector: Connect) -> None:
    """A record without an id in it is the one that was asked for."""
    server = serve(script(reply(200, {"name": "x"})))
    assert connector(server.url).read(["7"])[0].external_id == "7"


@pytest.mark.parametrize(
    "raw,kind",
    [
        (reply(401), CrmRefusedError),
        (reply(500), CrmUnavailableError),
        (reply(200, []), CrmAnswerError),
        (reply(200, b""), CrmAnswerError),
    ],
)
def test_failed_read_is_not_a_missing_record(
    raw: bytes, kind: type[Exception], serve: Serve, connector: Connect
) -> None:
    """Only 404 and 410 say that a record does not exist."""
    server = serve(script(raw))
    with pytest.raises(kind):
        connector(server.url).read(["1"])


def test_read_that_is_not_configured_is_told(serve: Serve, connector: Connect) -> None:
    """A CRM that cannot be asked for one record does not answer that it is missing."""
    server = serve(script(reply(200, {})))
    with pytest.raises(CrmRefusedError, match=r"writing\.read"):
        connector(server.url, writing={"read": None}).read(["1"])


LOOKUP = {"lookup": {"path": "/search", "param": "phone"}}


@pytest.mark.parametrize(
    "body,ids",
    [
        ({"records": [{"id": 1}, {"id": 2}], "total": 2}, ["1", "2"]),
        ({"records": []}, []),
        ([], []),
        ({"data": {"id": 3}}, ["3"]),
        ({"id": 4, "phone": "x"}, ["4"]),
    ],
)
def test_find(body: Any, ids: list[str], serve: Serve, connector: Connect) -> None:
    """A lookup gives the records it lists, or the one it answers with."""
    server = serve(script(reply(200, body)))
    made = connector(server.url, writing=LOOKUP, listing={"params": {"view": "all"}})
    found = made.find("62811@c.us")
    assert [record.external_id for record in found or []] == ids
    assert found is not None
    assert (server.seen[0].path, server.seen[0].query) == ("/search", {"view": "all", "phone": "62811@c.us"})


def test_find_without_a_lookup_is_none(serve: Serve, connector: Connect) -> None:
    """A CRM that cannot be asked is not asked."""
    server = serve(script(reply(200, [])))
    assert connector(server.url).find("x") is None
    assert server.seen == []


@pytest.mark.parametrize(
    "raw,kind",
    [
        (reply(200, {"records": [{"id": 1}], "next_cursor": "more"}), CrmAnswerError),
        (reply(200, {"records": [{"id": 1}], "total": 5000}), CrmAnswerError),
        (reply(200, {"hello": "x"}), CrmAnswerError),
        (reply(404), CrmRefusedError),
        (reply(503), CrmUnavailableError),
    ],
)
def test_failed_find_is_not_an_empty_one(
    raw: bytes, kind: type[Exception], serve: Serve, connector: Connect
) -> None:
    """A filter that is ignored, or an answer that is none, does not mean that nobody holds the value."""
    server = serve(script(raw))
    with pytest.raises(kind):
        connector(server.url, writing=LOOKUP).find("x")


def test_connect_makes_a_generic_connector(serve: Serve) -> None:
    """The factory's connector speaks to the CRM with the key and counts its calls."""
    server = serve(cursor_crm)
    made = connect(Connection(base_url=server.url), KEY)
    assert len(records_of(made)) == 6
    assert made.calls == 3
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    made.close()


def test_sleep_and_observer_are_passed_on(serve: Serve) -> None:
    """The factory hands its parameters to the session."""
    waits: list[float] = []
    told: list[Any] = []
    observe: Callable[[Any], None] = told.append
    server = serve(script(reply(429, Retry_After="3"), reply(200, [])))
    made = connect(Connection(base_url=server.url), KEY, sleep=waits.append, observe=observe)
    assert records_of(made) == []
    made.close()
    assert 3.0 <= waits[0] <= 3.5
    assert [each.status for each in told] == [429, 200]
