"""HubSpot's connector against the simulated account: reads, windows, batches, deletes, merges, tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crm_pipeline.connectors import connect
from crm_pipeline.connectors.base import CrmUnavailableError, ResumeError, Window, Write
from crm_pipeline.connectors.rest import RestConnector
from crm_pipeline.connectors.session import Session
from crm_pipeline.simulators.crm import GenericCrm
from crm_pipeline_tests.connectors.servers import reply, script, serving
from crm_pipeline_tests.connectors.vendors import account, preset
from crm_pipeline_tests.connectors.writes import GONE, REFUSED, UNKNOWN, WRITTEN, statuses

LONG_AGO = Window(since=datetime(2020, 1, 1, tzinfo=UTC))
OAUTH = {
    "kind": "oauth2",
    "oauth": {
        "grant": "refresh_token",
        "client_id": "sim-client",
        "client_secret": "sim-secret",
        "refresh_token": "sim-refresh",
    },
}


def contact(key: str, external_id: str | None = None, **properties: Any) -> Write:
    """A write of some properties."""
    return Write(key, external_id, {"properties": properties})


def test_everything_is_read_in_the_fewest_calls() -> None:
    """The list has no depth: pages of a hundred, each record once, with the properties asked for."""
    with account("hubspot", 1_234) as made:
        records = made.read()
        assert len({record.external_id for record in records}) == len(records) == 1_234
        assert made.connector.calls == 13
        assert {"chat_id", "company", "notes", "lastmodifieddate"} <= records[0].payload["properties"].keys()
        assert all(record.modified_at is not None for record in records)


def test_a_window_is_searched_past_ten_thousand_and_loses_nothing() -> None:
    """The search starts again where it stood; one of its pages is worth two of the list's."""
    with account("hubspot", 10_700) as made:
        assert len(set(made.ids(LONG_AGO))) == 10_700
        assert made.crm.calls["search"] <= 10_700 // 200 + 2


def test_thousands_in_one_millisecond_are_all_read() -> None:
    """An import stamps more records alike than the search is deep: then it goes by id."""
    moment = datetime(2026, 1, 5, tzinfo=UTC)
    with account("hubspot") as made:
        made.crm.clock = lambda: moment
        for _ in range(10_450):
            made.crm.create(lastname="Uji")
        assert len(set(made.ids(LONG_AGO))) == 10_450


def test_a_record_edited_while_it_is_read_pushes_no_other_out() -> None:
    """What moves to the end of the order leaves no gap that hides its neighbour."""
    with account("hubspot", 900) as made:
        found: set[str | None] = set()
        for page in made.connector.pages(LONG_AGO):
            found |= {record.external_id for record in page.records}
            for record in page.records[:50]:
                made.crm.edit(str(record.external_id), notes="changed meanwhile")
            if len(found) >= 800:
                break
        found |= set(made.ids(LONG_AGO))
        assert len(found) == 900


def test_a_window_shows_what_was_archived_in_it() -> None:
    """A deleted contact comes as deleted, with the window's changes; one that was merged away, too."""
    with account("hubspot", 30) as made:
        made.crm.delete("5")
        made.crm.merge("6", "7")
        window = Window(since=datetime.now(UTC) - timedelta(minutes=5))
        told = {record.external_id: record.deleted for record in made.read(window)}
        assert told == {"5": True, "6": False, "7": True}
        later = Window(since=datetime.now(UTC) + timedelta(minutes=5))
        assert made.read(later) == []


def test_reading_goes_on_where_it_stopped() -> None:
    """Any page's place is enough for another process; a place the CRM refuses starts the window again."""
    for window, count in ((Window(), 250), (LONG_AGO, 450)):
        with account("hubspot", count) as made:
            pages = list(made.connector.pages(window))
            for number, page in enumerate(pages[:-1]):
                rest = list(made.connector.pages(window, page.next))
                assert [p.records for p in rest] == [p.records for p in pages[number + 1 :]]
            with pytest.raises(ResumeError):
                next(made.connector.pages(window, {"by": "list", "after": "no number"}))


def test_more_properties_than_a_url_holds_are_read_by_batches() -> None:
    """A list of names that would be answered 414 goes out in the body of a second call."""
    own = {
        f"own_{number}": {"type": "text", "names": [f"properties.own_{number:040d}"]} for number in range(150)
    }
    with account("hubspot", 250, sections={"fields": own}) as made:
        assert len({record.payload["properties"]["chat_id"] for record in made.read()}) == 250
        assert made.crm.calls == {"list": 3, "batch_read": 3}


def test_records_are_read_by_id_and_by_unique_value() -> None:
    """A hundred in a call; one that is gone is left out, one that was merged comes under the other's id."""
    with account("hubspot", 250) as made:
        made.crm.merge("6", "7")
        made.crm.delete("8")
        read = made.connector.read([*map(str, range(1, 251)), "999999", "odd/../id"])
        assert {record.external_id for record in read} == {str(each) for each in range(1, 251)} - {"7", "8"}
        assert made.connector.calls == 3
        assert [each.external_id for each in made.connector.read(["7"])] == ["6"]
        value = str(made.crm.fields(made.crm.row("9"))["chat_id"])
        assert [each.external_id for each in made.connector.find(value) or []] == ["9"]
        assert made.connector.find("nobody") == []


def test_a_batch_is_judged_row_by_row() -> None:
    """Creates, updates, refused and vanished rows go out in two calls, and each hears its own fate."""
    with account("hubspot", 3) as made:
        results = made.connector.write(
            [
                contact("a", chat_id="628110001@c.us", lastname="Uji", capacity=5),
                contact("b", "1", notes="baru"),
                contact("c", "2", capacity="many"),
                contact("d", "999", notes="x"),
                contact("e", chat_id="628110002@c.us", deal_status="hot"),
            ]
        )
        assert statuses(results) == [WRITTEN, WRITTEN, REFUSED, GONE, REFUSED]
        assert made.connector.calls == 2
        assert "INVALID_INTEGER, capacity" in results[2].reason
        assert results[0].record is not None
        assert results[0].record.payload["properties"]["capacity"] == "5"


def test_a_repeated_create_makes_no_twin() -> None:
    """The answer is lost; the create goes again by the unique property and finds its own record."""
    with account("hubspot", 0, "cut_after_write=1") as made:
        write = contact("a", chat_id="628110001@c.us", lastname="Uji")
        assert statuses(made.connector.write([write])) == [UNKNOWN]
        made.crm.faults = type(made.crm.faults)()
        assert statuses(made.connector.write([write])) == [WRITTEN]
        assert len(made.crm.shelf) == 1


def test_a_batch_refused_as_a_whole_is_cut_in_two() -> None:
    """Without a unique property creates may be refused together: the guilty row is found alone."""
    sections = {"writing": {"upsert_by": None}}
    with account("hubspot", 1, sections=sections) as made:
        same = [contact(f"u{number}", "1", notes=str(number)) for number in range(2)]
        assert statuses(made.connector.write(same)) == [WRITTEN, WRITTEN]


def test_an_existing_contact_is_named() -> None:
    """A create that a unique value forbids says which record is in the way."""
    with account("hubspot", 2, sections={"writing": {"upsert_by": None}}) as made:
        taken = made.crm.fields(made.crm.row("2"))["chat_id"]
        (result,) = made.connector.write([contact("a", chat_id=taken, lastname="Uji")])
        assert (result.status, result.external_id) == (REFUSED, "2")


def test_a_token_that_ends_is_renewed_once() -> None:
    """OAuth: the token ends in the middle of a read; one refresh, and the read goes on."""
    with account("hubspot", 350, sections={"auth": OAUTH}) as made:
        pages = made.connector.pages(Window())
        next(pages)
        made.crm.tokens.end_all()
        assert len([record for page in pages for record in page.records]) == 250
        assert made.crm.tokens.issued == 2


def test_a_refused_refresh_token_is_told_in_its_own_words() -> None:
    """The reason names the cause and no secret."""
    oauth = {**OAUTH["oauth"], "refresh_token": "wrong-token"}  # type: ignore[dict-item]
    with account("hubspot", 1, sections={"auth": {"kind": "oauth2", "oauth": oauth}}) as made:
        with pytest.raises(Exception, match="invalid_grant") as told:
            made.ids()
        assert "wrong-token" not in str(told.value)


@pytest.mark.parametrize("fault", ["rate_limit=3", "server_error=3:502", "cut_in_answer=3"])
def test_passing_faults_are_ridden_out(fault: str) -> None:
    """Lists, searches and batch reads are repeated, though two of them are POSTs."""
    with account("hubspot", 650, fault) as made:
        assert len(set(made.ids())) == len(set(made.ids(LONG_AGO))) == 650
        assert len(made.connector.read([str(number) for number in range(1, 651)])) == 650


def test_the_days_quota_is_not_knocked_at() -> None:
    """A used-up day is no burst: one call, and the reason."""
    with account("hubspot", 1, daily=0) as made:
        with pytest.raises(CrmUnavailableError, match="429"):
            made.ids()
        assert (made.connector.calls, made.waits) == (1, [])


@pytest.mark.parametrize("status,wait", [(423, 2.0), (429, 10.0)])
def test_locks_and_bursts_are_waited_for(status: int, wait: float) -> None:
    """What carries no Retry-After has a wait of its own."""
    good = reply(200, {"results": []})
    with serving(script(reply(status, {"status": "error"}), good)) as server:
        waits: list[float] = []
        made = connect(preset("hubspot", server.url), "key", sleep=waits.append)
        assert next(made.pages(Window())).records == ()
        assert waits[0] >= wait


@pytest.mark.parametrize(
    "url", ["", "/crm/v3/objects/contacts", "/crm/objects/2026-03/contacts", "/crm/v3/objects/contacts/"]
)
def test_the_url_may_be_the_root_or_the_list_of_any_version(url: str) -> None:
    """A dated version works by its URL."""
    with account("hubspot", 5, sections={}) as made:
        connection = preset("hubspot", made.url + url)
        other = connect(connection, "sim-key")
        assert len(next(other.pages(Window())).records) == 5
        other.close()


def test_the_preset_alone_reads_and_writes_singly() -> None:
    """The preset is a file like any other: the generic connector lists, reads and writes with it."""
    with account("hubspot", 250) as made:
        connection = preset("hubspot", made.url)
        plain = RestConnector(connection, Session(connection, "sim-key"))
        assert len([record for page in plain.pages(Window()) for record in page.records]) == 250
        (new,) = plain.write([contact("a", chat_id="628110001@c.us", lastname="Uji")])
        (changed,) = plain.write([contact("b", new.external_id, notes="baru")])
        assert statuses([new, changed]) == [WRITTEN, WRITTEN]
        (read,) = plain.read([str(new.external_id)])
        assert read.payload["properties"]["hs_object_id"] == new.external_id
        plain.close()


def test_generic_and_vendor_contacts_are_the_same_people() -> None:
    """A simulated account holds the generic simulator's contacts under its own names."""
    with account("hubspot", 5) as made:
        theirs = [made.crm.fields(row)["chat_id"] for row in made.crm.shelf.created]
    assert theirs == [record["phone"] for record in GenericCrm.seeded(5).records.values()]
