"""Zoho's connector against the simulated account: page tokens, deletes, rows by place, few tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crm_pipeline.connectors import connect
from crm_pipeline.connectors.base import (
    ConnectorSetupError,
    CrmRefusedError,
    CrmUnavailableError,
    ResumeError,
    Window,
    Write,
)
from crm_pipeline.connectors.rest import RestConnector
from crm_pipeline.connectors.session import Session
from crm_pipeline.connectors.zoho import DIALECT
from crm_pipeline_tests.connectors.servers import reply, script, serving
from crm_pipeline_tests.connectors.vendors import Account, account, preset
from crm_pipeline_tests.connectors.writes import GONE, REFUSED, UNKNOWN, WRITTEN, statuses

LONG_AGO = Window(since=datetime(2020, 1, 1, tzinfo=UTC))
OAUTH: dict[str, Any] = {
    "grant": "refresh_token",
    "client_id": "sim-client",
    "client_secret": "sim-secret",
    "refresh_token": "sim-refresh",
}


def contact(key: str, external_id: str | None = None, **fields: Any) -> Write:
    """A write of some fields."""
    return Write(key, external_id, fields)


def nth(made: Account, number: int) -> str:
    """Id of the contact that was made so many-th."""
    return made.crm.vendor.make_id(number)


def test_everything_is_read_in_the_fewest_calls() -> None:
    """Page tokens lead past the two thousand records that page numbers reach."""
    with account("zoho", 2_450) as made:
        records = made.read()
        assert len({record.external_id for record in records}) == 2_450
        assert made.connector.calls == 13
        assert all(record.modified_at is not None for record in records)


def test_a_token_past_its_depth_starts_again_where_it_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand records are all that tokens lead to; the time of the last goes on."""
    monkeypatch.setattr("crm_pipeline.connectors.zoho._DEPTH", 600)
    monkeypatch.setattr("crm_pipeline.simulators.zoho.DEPTH", 600)
    with account("zoho", 2_000) as made:
        assert len(set(made.ids())) == 2_000


def test_a_window_is_what_changed_and_what_was_deleted() -> None:
    """Deleted records are a listing of their own; merged ones are among them."""
    with account("zoho", 30) as made:
        made.crm.delete(nth(made, 5))
        made.crm.merge(nth(made, 6), nth(made, 7))
        window = Window(since=datetime.now(UTC) - timedelta(minutes=5))
        told = {record.external_id: record.deleted for record in made.read(window)}
        assert told == {nth(made, 5): True, nth(made, 6): False, nth(made, 7): True}
        assert made.connector.calls == 2


def test_nothing_new_is_no_content() -> None:
    """304 and 204 have no body, and are no error."""
    with account("zoho", 5) as made:
        assert made.read(Window(since=datetime.now(UTC) + timedelta(hours=1))) == []
    with account("zoho", 0) as made:
        assert made.read() == []


def test_reading_goes_on_where_it_stopped() -> None:
    """A token is enough for another process; one that has ended starts the window again."""
    with account("zoho", 450) as made:
        pages = list(made.connector.pages(LONG_AGO))
        rest = list(made.connector.pages(LONG_AGO, pages[0].next))
        assert [page.records for page in rest] == [page.records for page in pages[1:]]
        with pytest.raises(ResumeError):
            next(made.connector.pages(LONG_AGO, {"by": "list", "token": "ended", "seen": 200}))


def test_rows_are_judged_by_place_whatever_the_status() -> None:
    """207 for mixed results, 400 where all failed: each row hears its own fate."""
    with account("zoho", 3) as made:
        results = made.connector.write(
            [
                contact("a", Chat_Id="628110001@c.us", Last_Name="Uji", Capacity=5),
                contact("b", nth(made, 1), Description="baru"),
                contact("c", nth(made, 2), Capacity="many"),
                contact("d", nth(made, 99), Description="x"),
                contact("e", Chat_Id="628110002@c.us"),
            ]
        )
        assert statuses(results) == [WRITTEN, WRITTEN, REFUSED, GONE, REFUSED]
        assert made.connector.calls == 2
        assert "MANDATORY_NOT_FOUND, Last_Name" in results[4].reason
        assert statuses(made.connector.write([contact("f", nth(made, 1), Capacity="many")])) == [REFUSED]


def test_a_repeated_create_makes_no_twin() -> None:
    """Upsert by the unique field: the second time it is the same record, and it can be found."""
    with account("zoho", 0, "cut_after_write=1") as made:
        write = contact("a", Chat_Id="628110001@c.us", Last_Name="Uji")
        assert statuses(made.connector.write([write])) == [UNKNOWN]
        made.crm.faults = type(made.crm.faults)()
        assert statuses(made.connector.write([write])) == [WRITTEN]
        assert len(made.crm.shelf) == len(made.connector.find("628110001@c.us") or []) == 1


@pytest.mark.parametrize("value", ["' or id != '", "\\", "%", "'; x", "nobody"])
def test_no_value_becomes_a_piece_of_the_query(value: str) -> None:
    """Quotes and backslashes are data."""
    with account("zoho", 5) as made:
        assert made.connector.find(value) == []
        made.crm.create(Last_Name="Uji", Chat_Id=value)
        assert [each.payload["Chat_Id"] for each in made.connector.find(value) or []] == [value]


def test_few_tokens_are_asked_for() -> None:
    """One token serves a whole read; the end of it is renewed once; the throttle is no wrong key."""
    with account("zoho", 650, sections={"auth": {"kind": "oauth2", "oauth": OAUTH}}) as made:
        pages = made.connector.pages(Window())
        next(pages)
        made.crm.tokens.end_all()
        assert sum(len(page.records) for page in pages) == 450
        assert made.crm.tokens.issued == 2
        for _ in range(8):
            made.crm.tokens.end_all()
            made.ids()
        made.crm.tokens.end_all()
        with pytest.raises(CrmUnavailableError, match="too many were asked for"):
            made.ids()


def test_an_error_with_status_200_is_an_error() -> None:
    """A wrong refresh token comes as 200; so may errors of the API."""
    oauth = {**OAUTH, "refresh_token": "wrong-token"}
    with account("zoho", 1, sections={"auth": {"kind": "oauth2", "oauth": oauth}}) as made:
        with pytest.raises(CrmRefusedError, match="invalid_code") as told:
            made.ids()
        assert "wrong-token" not in str(told.value)
    body = {"code": "INVALID_MODULE", "details": {}, "message": "x", "status": "error"}
    with serving(script(reply(200, body))) as server:
        made = connect(preset("zoho", server.url), "key")  # type: ignore[assignment]
        with pytest.raises(CrmRefusedError, match="400"):
            list(made.pages(Window()))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "base,token_url",
    [
        ("https://www.zohoapis.com", "https://accounts.zoho.com/oauth/v2/token"),
        ("https://www.zohoapis.com.au/crm/v2/Contacts", "https://accounts.zoho.com.au/oauth/v2/token"),
        ("https://sandbox.zohoapis.eu", "https://accounts.zoho.eu/oauth/v2/token"),
        ("https://www.zohoapis.ca", "https://accounts.zohocloud.ca/oauth/v2/token"),
    ],
)
def test_tokens_come_from_the_data_centre_of_the_url(base: str, token_url: str) -> None:
    """A token of another data centre is useless."""
    assert DIALECT.token_url is not None
    assert DIALECT.token_url(base) == token_url


def test_more_fields_than_zoho_lists_are_told() -> None:
    """Fifty is all that one request takes."""
    own = {f"own_{number}": {"type": "text", "names": [f"Own_{number}"]} for number in range(40)}
    with pytest.raises(ConnectorSetupError, match="up to 50 fields"):
        connect(preset("zoho", "https://www.zohoapis.com", fields=own), "key")


@pytest.mark.parametrize("fault", ["rate_limit=3", "server_error=3:503", "cut_in_answer=3"])
def test_passing_faults_are_ridden_out(fault: str) -> None:
    """Reads are repeated."""
    with account("zoho", 1_300, fault) as made:
        assert len(set(made.ids())) == 1_300
        assert len(made.connector.read([nth(made, number) for number in range(1, 301)])) == 300


@pytest.mark.parametrize("path", ["", "/crm/v2/Contacts", "/crm/v8/Contacts"])
def test_the_guides_url_is_understood(path: str) -> None:
    """An old version in the URL has no page tokens: the preset's is taken."""
    with account("zoho", 5) as made:
        other = connect(preset("zoho", made.url + path), "sim-key")
        assert len(next(other.pages(Window())).records) == 5
        other.close()


def test_the_preset_alone_reads_and_writes_singly() -> None:
    """The preset is a file like any other: the generic connector lists, reads and writes with it."""
    with account("zoho", 450) as made:
        connection = preset("zoho", made.url)
        plain = RestConnector(connection, Session(connection, "sim-key"))
        assert len([record for page in plain.pages(Window()) for record in page.records]) == 450
        (new,) = plain.write([contact("a", Chat_Id="628110001@c.us", Last_Name="Uji")])
        (changed,) = plain.write([contact("b", new.external_id, Description="baru")])
        assert statuses([new, changed]) == [WRITTEN, WRITTEN]
        (read,) = plain.read([str(new.external_id)])
        assert read.payload["Description"] == "baru"
        plain.close()
