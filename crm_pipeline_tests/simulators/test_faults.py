"""What goes wrong when it should: each fault as a client meets it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import orjson
import pytest
import requests

from crm_pipeline.simulators.badrecords import KINDS
from crm_pipeline.simulators.faults import (
    FOREIGN_HOST,
    SPELLINGS,
    FaultError,
    Faults,
    FaultTurns,
    parse_fault,
    parse_faults,
)
from crm_pipeline.simulators.generic import CrmOptions, GenericCrm
from crm_pipeline_tests.simulators.client import Client
from crm_pipeline_tests.simulators.conftest import Serve

NOW = datetime(2026, 1, 5, 10, tzinfo=UTC)


class TestRateLimit:
    """429 and what it tells the caller."""

    def test_every_kth_request(self, serve: Serve) -> None:
        """Each third request is 429 with seconds to wait, and is not done."""
        client = serve(GenericCrm.seeded(1, faults=parse_faults(["rate_limit=3:7"])))
        answers = [client.call("PATCH", "/100001", json={"notes": str(turn)}) for turn in range(6)]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 200, 200, 429]
        assert answers[2].headers["Retry-After"] == "7"
        assert client.crm.records["100001"]["notes"] == "4"
        assert client.crm.stats()["faults"] == {"rate_limit": 2}
        assert client.crm.requests == 6

    def test_as_a_date(self, serve: Serve) -> None:
        """``Retry-After`` may be an HTTP date that lies ahead."""
        client = serve(GenericCrm(faults=parse_faults(["rate_limit=1:date:20"])))
        until = parsedate_to_datetime(client.page().headers["Retry-After"])
        assert 15 < (until - datetime.now(UTC)).total_seconds() <= 21

    def test_within_a_window(self) -> None:
        """More than so many requests in a window are 429 until it is over."""
        now = [100.0]
        turns = FaultTurns(parse_faults(["rate_limit=2/10"]), lambda: now[0])
        assert [turns.next("list") for _ in range(4)] == ["", "", "rate_limit", "rate_limit"]
        now[0] += 7.5
        assert turns.retry_after() == 3
        now[0] += 2.5
        assert turns.next("list") == ""


@pytest.mark.parametrize("text, status", [("server_error=2", 500), ("server_error=2:503", 503)])
def test_server_errors_do_nothing(serve: Serve, text: str, status: int) -> None:
    """Every k-th request is a 5xx; a write that gets one was not applied."""
    client = serve(GenericCrm.seeded(1, faults=parse_faults([text])))
    answers = [client.call("PATCH", "/100001", json={"notes": str(turn)}).status_code for turn in range(4)]
    assert answers == [200, status, 200, status]
    assert client.crm.records["100001"]["notes"] == "2"


@pytest.mark.parametrize("below", ["/100001", ""])
def test_cut_after_write(serve: Serve, below: str) -> None:
    """The client sees its connection die; the CRM has applied the write."""
    client = serve(GenericCrm.seeded(1, faults=Faults(cut_after_write=1)))
    with pytest.raises(requests.ConnectionError):
        client.call("PATCH" if below else "POST", below, json={"notes": "applied"})
    assert [record["notes"] for record in client.crm.records.values()][-1] == "applied"
    assert client.crm.log[-1].payload == {"notes": "applied"}
    assert client.call("GET", "/100001").status_code == 200


def test_cut_before_write(serve: Serve) -> None:
    """The client sees its connection die; every second write was not applied, the others were."""
    client = serve(GenericCrm.seeded(1, faults=Faults(cut_before_write=2)))
    assert client.call("PATCH", "/100001", json={"notes": "first"}).status_code == 200
    with pytest.raises(requests.ConnectionError):
        client.call("PATCH", "/100001", json={"notes": "second"})
    assert client.crm.records["100001"]["notes"] == "first"
    assert len(client.crm.log) == 1


def test_cut_in_answer(serve: Serve) -> None:
    """A listing's body ends early and the client can tell."""
    client = serve(GenericCrm.seeded(30, faults=Faults(cut_in_answer=2)))
    assert len(client.page().json()["records"]) == 30
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        client.page()


def test_truncated_json(serve: Serve) -> None:
    """A complete answer holds half a document."""
    client = serve(GenericCrm.seeded(30, faults=Faults(truncated_json=2)))
    assert len(client.page().json()["records"]) == 30
    answer = client.page()
    assert answer.status_code == 200
    assert answer.content.startswith(b'{"records":[')
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(answer.content)


def test_success_that_is_none(serve: Serve) -> None:
    """A login page and an error body both come with status 200, and nothing is done."""
    client = serve(GenericCrm.seeded(1, faults=Faults(html_login=2, error_in_200=2)))
    answers = [client.call("PATCH", "/100001", json={"notes": str(turn)}) for turn in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.headers["content-type"].partition(";")[0] for answer in answers] == [
        "application/json",
        "text/html",
        "application/json",
        "text/html",
    ]
    assert answers[2].json()["success"] is False
    assert client.crm.records["100001"]["notes"] == "0"


def test_slowness(serve: Serve) -> None:
    """Latency delays every request; a dripping listing comes whole, but over its time."""
    client = serve(GenericCrm.seeded(30, faults=Faults(latency=0.1, slow_drip=0.2)))
    start = time.perf_counter()
    assert client.call("GET", "/100001").status_code == 200
    read = time.perf_counter()
    assert read - start >= 0.1
    assert len(client.page().json()["records"]) == 30
    assert time.perf_counter() - read >= 0.3


@pytest.mark.parametrize("style", ["cursor", "header_cursor", "next_link", "link_header"])
def test_repeated_cursor(serve: Serve, style: str) -> None:
    """From the second page on, the CRM leads to the page it has just given."""
    options = CrmOptions(pagination=style, page_size=10)
    client = serve(GenericCrm.seeded(30, options=options, faults=Faults(repeated_cursor=True)))

    def follow(page: requests.Response) -> requests.Response:
        if style == "cursor":
            return client.page(cursor=page.json()["next_cursor"])
        if style == "header_cursor":
            return client.page(cursor=page.headers["X-Next-Cursor"])
        link = page.json()["next"] if style == "next_link" else page.links["next"]["url"]
        return client.session.get(link, timeout=5)

    first = client.page()
    second = follow(first)
    third = follow(second)
    assert first.json()["records"] != second.json()["records"]
    assert third.json() == second.json()
    assert len(third.json()["records"]) == 10


@pytest.mark.parametrize("style, name", [("page", "page"), ("offset", "offset")])
def test_repeated_page(serve: Serve, style: str, name: str) -> None:
    """Counting styles hand out page two for every later one."""
    options = CrmOptions(pagination=style, page_size=10)
    client = serve(GenericCrm.seeded(30, options=options, faults=Faults(repeated_cursor=True)))
    numbers = (2, 3, 9) if style == "page" else (10, 20, 80)
    pages = [client.page(**{name: number}).json()["records"] for number in numbers]
    assert pages[0] == pages[1] == pages[2] != client.page().json()["records"]


def test_links_to_another_host(serve: Serve) -> None:
    """Next links and redirects lead where they are told to, elsewhere by default."""
    options = CrmOptions(pagination="next_link", page_size=10)
    client = serve(GenericCrm.seeded(30, options=options, faults=parse_faults(["foreign_next_link"])))
    assert client.page().json()["next"].startswith(f"{FOREIGN_HOST}/api/contacts?cursor=")
    client.crm.faults = parse_faults(["foreign_redirect=http://127.0.0.1:9/ignored"])
    answer = client.page()
    assert answer.status_code == 307
    assert answer.headers["Location"] == "http://127.0.0.1:9/api/contacts"
    assert client.call("GET", "/100001").status_code == 200


class TestBadRecords:
    """Records that nobody can use."""

    def test_one_in_k_is_broken_and_told(self, serve: Serve) -> None:
        """Exactly the records the CRM names are broken, of all kinds, and the others are as they are."""
        client = serve(GenericCrm.seeded(200, clock=lambda: NOW, faults=Faults(bad_record=10)))
        broken = client.crm.broken
        listed = client.page(limit=1000).json()["records"]
        sound = client.crm.records
        different = {
            record_id: shown
            for record_id, shown in zip(sound, listed, strict=True)
            if shown != sound[record_id]
        }
        assert len(listed) == 200
        assert set(different) == set(broken)
        assert len(broken) == 20
        assert set(broken.values()) == set(KINDS)
        for record_id, shown in different.items():
            if broken[record_id] == "not_an_object":
                assert isinstance(shown, str)
            if broken[record_id] == "null_id":
                assert shown["id"] is shown["phone"] is None

    def test_the_same_seed_breaks_the_same_records(self) -> None:
        """The seed decides which records are broken and how; another seed breaks others."""

        def broken(seed: int) -> dict[str, str]:
            return GenericCrm.seeded(500, clock=lambda: NOW, faults=Faults(bad_record=50, seed=seed)).broken

        assert broken(3) == broken(3) != broken(4)
        assert len(broken(3)) == 10

    def test_an_edit_mends_and_no_fault_mends_all(self, serve: Serve) -> None:
        """A record somebody corrects is handed out sound; without the fault all are."""
        client = serve(GenericCrm.seeded(30, faults=Faults(bad_record=3)))
        first = next(iter(client.crm.broken))
        client.crm.edit(first, notes="corrected")
        assert first not in client.crm.broken
        assert client.call("GET", f"/{first}").json() == client.crm.records[first]
        client.crm.faults = Faults()
        assert client.page().json()["records"] == list(client.crm.records.values())


def test_faults_combine(serve: Serve) -> None:
    """Two faults of one period both show: a request one has spoilt is no turn of the next."""
    client = serve(GenericCrm.seeded(1, faults=parse_faults(["rate_limit=3", "server_error=2"])))
    statuses = [client.page().status_code for _ in range(9)]
    assert statuses == [200, 500, 429, 200, 500, 429, 200, 500, 429]


def test_the_same_requests_meet_the_same_faults(serve: Serve) -> None:
    """Two CRMs with one set of faults answer one sequence of requests alike, byte for byte."""
    texts = ["rate_limit=5:0", "server_error=4", "truncated_json=3", "bad_record=4", "error_in_200=7"]

    def answers(client: Client) -> list[tuple[int, bytes]]:
        pages = [client.page(page=turn % 3 + 1, limit=10, pagination="page") for turn in range(30)]
        return [(page.status_code, page.content) for page in pages]

    one, other = (
        serve(GenericCrm.seeded(30, clock=lambda: NOW, faults=parse_faults(texts, seed=2))) for _ in range(2)
    )
    assert answers(one) == answers(other)
    assert len({status for status, _ in answers(one)}) == 3


class TestSpelling:
    """Faults as written on the command line."""

    @pytest.mark.parametrize(
        "text, fields",
        [
            ("latency=0.25", {"latency": 0.25}),
            ("rate_limit=10", {"rate_limit": 10}),
            ("rate_limit=10:date", {"rate_limit": 10, "retry_after_date": True}),
            ("rate_limit=10:date:5", {"rate_limit": 10, "retry_after_date": True, "retry_after": 5}),
            ("rate_limit=100/60", {"rate_limit": 100, "rate_window": 60.0}),
            ("server_error=7:503", {"server_error": 7, "server_error_status": 503}),
            ("bad_record=1000", {"bad_record": 1000}),
            ("repeated_cursor", {"repeated_cursor": True}),
            ("foreign_next_link", {"foreign_next_link": FOREIGN_HOST}),
            ("foreign_next_link=http://127.0.0.1:9/x", {"foreign_next_link": "http://127.0.0.1:9"}),
        ],
    )
    def test_a_spelling_means_what_it_says(self, text: str, fields: dict[str, object]) -> None:
        """A fault's text sets just the fields it names."""
        assert parse_fault(text) == fields

    @pytest.mark.parametrize("name", SPELLINGS)
    def test_every_fault_has_a_usage_that_starts_with_its_name(self, name: str) -> None:
        """Help pages can list every fault."""
        assert SPELLINGS[name].usage.startswith(name)
        assert SPELLINGS[name].meaning

    def test_an_unknown_name_lists_the_valid_ones(self) -> None:
        """A mistake is answered with every name there is."""
        with pytest.raises(FaultError, match="there is no fault 'rate'") as raised:
            parse_fault("rate=3")
        assert all(spelling.usage in str(raised.value) for spelling in SPELLINGS.values())

    @pytest.mark.parametrize(
        "text",
        [
            "latency",
            "latency=-1",
            "latency=inf",
            "rate_limit=0",
            "rate_limit=ten",
            "rate_limit=10:soon",
            "server_error=3:404",
            "cut_after_write",
            "repeated_cursor=2",
            "foreign_next_link=elsewhere",
        ],
    )
    def test_a_wrong_value_says_how_to_write_it(self, text: str) -> None:
        """The error names the fault and its usage."""
        with pytest.raises(FaultError, match=text.partition("=")[0]) as raised:
            parse_faults([text])
        assert "; write " in str(raised.value)
