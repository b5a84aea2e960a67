"""Salesforce's connector against the simulated org: SOQL, cursors, deletes, merges, collections, tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crm_pipeline.connection import FieldRule
from crm_pipeline.connection_file import ConnectionFileError
from crm_pipeline.connectors import connect, soql
from crm_pipeline.connectors.base import ConnectorSetupError, CrmUnavailableError, ResumeError, Window, Write
from crm_pipeline.connectors.rest import RestConnector
from crm_pipeline.connectors.session import Session
from crm_pipeline.simulators.soql import Query
from crm_pipeline_tests.connectors.vendors import Account, account, preset
from crm_pipeline_tests.connectors.writes import GONE, REFUSED, UNKNOWN, WRITTEN, statuses

LONG_AGO = Window(since=datetime(2020, 1, 1, tzinfo=UTC))
CLIENT = {"grant": "client_credentials", "client_id": "sim-client", "client_secret": "sim-secret"}


def contact(key: str, external_id: str | None = None, **fields: Any) -> Write:
    """A write of some fields."""
    return Write(key, external_id, fields)


def nth(made: Account, number: int) -> str:
    """Id of the contact that was made so many-th."""
    return made.crm.vendor.make_id(number)


def test_everything_is_read_in_the_fewest_calls() -> None:
    """Pages of two thousand by the cursor that the org gives."""
    with account("salesforce", 4_300) as made:
        records = made.read()
        assert len({record.external_id for record in records}) == 4_300
        assert made.connector.calls == 3
        assert "attributes" not in records[0].payload
        assert all(record.modified_at is not None for record in records)


def test_a_window_shows_deletes_and_the_winners_of_merges() -> None:
    """What was deleted comes as deleted; who won a merge comes though nobody edited it."""
    with account("salesforce", 30) as made:
        made.crm.delete(nth(made, 5))
        made.crm.merge(nth(made, 6), nth(made, 7))
        window = Window(since=datetime.now(UTC) - timedelta(minutes=5))
        told = {record.external_id: record.deleted for record in made.read(window)}
        assert told == {nth(made, 5): True, nth(made, 6): False, nth(made, 7): True}
        assert made.connector.calls == 1
        assert [record.external_id for record in made.connector.read([nth(made, 7)])] == [nth(made, 6)]
        assert made.connector.read([nth(made, 5)]) == []


def test_reading_goes_on_where_it_stopped() -> None:
    """A cursor is enough for another process; one that is gone starts the window again."""
    with account("salesforce", 2_500) as made:
        first, second = made.connector.pages(LONG_AGO)
        (rest,) = made.connector.pages(LONG_AGO, first.next)
        assert rest.records == second.records
        old = {"next": "/services/data/v67.0/query/0r8xx9999999999-2000"}
        for place in (old, {"next": "https://elsewhere.example/services/data/v67.0/query/0r8"}):
            with pytest.raises(ResumeError):
                next(made.connector.pages(LONG_AGO, place))


def test_a_collection_is_judged_row_by_row() -> None:
    """200 rows a call, results in the order sent, and a row's error is its own."""
    with account("salesforce", 3) as made:
        results = made.connector.write(
            [
                contact("a", Chat_Id__c="628110001@c.us", LastName="Uji", Capacity__c=5),
                contact("b", nth(made, 1), Description="baru"),
                contact("c", nth(made, 2), Deal_Status__c="hot"),
                contact("d", nth(made, 99), Description="x"),
                contact("e", Chat_Id__c="628110002@c.us", Capacity__c=7),
            ]
        )
        assert statuses(results) == [WRITTEN, WRITTEN, REFUSED, GONE, REFUSED]
        assert made.connector.calls == 2
        assert "REQUIRED_FIELD_MISSING, LastName" in results[4].reason
        assert made.crm.fields(made.crm.row(str(results[0].external_id)))["Capacity__c"] == 5


def test_a_repeated_create_makes_no_twin() -> None:
    """Upsert by the external id: the second time it is the same record."""
    with account("salesforce", 0, "cut_after_write=1") as made:
        write = contact("a", Chat_Id__c="628110001@c.us", LastName="Uji")
        assert statuses(made.connector.write([write])) == [UNKNOWN]
        made.crm.faults = type(made.crm.faults)()
        assert statuses(made.connector.write([write])) == [WRITTEN]
        found = made.connector.find("628110001@c.us") or []
        assert len(made.crm.shelf) == len(found) == 1


HOSTILE = ["' OR Id != '", "\\' OR Id != \\'", "'; DELETE", "%", "_", "\\", "\n", "') OR (LastName != '"]


@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_becomes_a_piece_of_the_query(value: str) -> None:
    """Quotes and backslashes are data: nobody is found, or exactly whoever holds that text."""
    with account("salesforce", 5) as made:
        assert made.connector.find(value) == []
        made.crm.create(LastName="Uji", Chat_Id__c=value)
        found = made.connector.find(value) or []
        assert [record.payload["Chat_Id__c"] for record in found] == [value]
    text = soql.select(["Id"], f"Chat_Id__c = {soql.literal(value)}")
    assert [(each.field, each.value) for each in Query.parsed(text).conditions] == [("Chat_Id__c", value)]


def test_ids_and_names_are_checked_before_they_are_used() -> None:
    """An odd id is no record; an odd name of a field is a mistake in the file."""
    with account("salesforce", 1) as made:
        assert made.connector.read(["x' OR Id != '", "", "003", "../sobjects"]) == []
        assert made.connector.calls == 0
    fields = {"event": {"names": ["Id FROM User--"]}}
    with pytest.raises(ConnectionFileError, match="not the name of a field in salesforce"):
        preset("salesforce", "https://x.my.salesforce.com", fields=fields)
    unchecked = preset("salesforce", "https://x.my.salesforce.com").model_copy(
        update={"fields": {"event": FieldRule.model_construct(names=("Id FROM User--",))}}
    )
    with pytest.raises(ConnectorSetupError, match="not the name of a Salesforce field"):
        connect(unchecked, "key")


def test_a_session_that_ends_is_renewed_and_the_instance_comes_from_the_token() -> None:
    """No end is told: a 401 renews, once, and the read goes on."""
    with account("salesforce", 4_100, sections={"auth": {"kind": "oauth2", "oauth": CLIENT}}) as made:
        pages = made.connector.pages(Window())
        next(pages)
        made.crm.tokens.end_all()
        assert sum(len(page.records) for page in pages) == 2_100
        assert made.crm.tokens.issued == 2


def test_a_refused_client_is_told() -> None:
    """The reason is the standard's word, without the secret."""
    oauth = {**CLIENT, "client_secret": "wrong-secret"}
    with account("salesforce", 1, sections={"auth": {"kind": "oauth2", "oauth": oauth}}) as made:
        with pytest.raises(Exception, match="invalid_client") as told:
            made.ids()
        assert "wrong-secret" not in str(told.value)


def test_a_used_up_quota_is_not_knocked_at() -> None:
    """It comes as 403 without Retry-After: one call, as a passing cause and not as a wrong key."""
    with account("salesforce", 1, daily=0) as made:
        with pytest.raises(CrmUnavailableError, match="429"):
            made.ids()
        assert (made.connector.calls, made.waits) == (1, [])


@pytest.mark.parametrize("fault", ["rate_limit=3", "server_error=3:503", "cut_in_answer=3"])
def test_passing_faults_are_ridden_out(fault: str) -> None:
    """Reads are repeated."""
    with account("salesforce", 9_000, fault) as made:
        assert len(set(made.ids())) == 9_000


@pytest.mark.parametrize(
    "path", ["", "/services/data/v67.0", "/services/data/v58.0/sobjects/Contact", "/services/data/v58.0/"]
)
def test_the_guides_url_is_understood(path: str) -> None:
    """It is no list of contacts; the instance and the version are taken from it."""
    with account("salesforce", 5) as made:
        other = connect(preset("salesforce", made.url + path), "sim-key")
        assert len(next(other.pages(Window())).records) == 5
        other.close()


def test_the_preset_alone_reads_and_writes_singly() -> None:
    """The preset is a file like any other: the generic connector lists, reads and writes with it."""
    with account("salesforce", 2_100) as made:
        connection = preset("salesforce", made.url)
        plain = RestConnector(connection, Session(connection, "sim-key"))
        assert len([record for page in plain.pages(Window()) for record in page.records]) == 2_100
        (new,) = plain.write([contact("a", Chat_Id__c="628110001@c.us", LastName="Uji")])
        (changed,) = plain.write([contact("b", new.external_id, Description="baru")])
        assert statuses([new, changed]) == [WRITTEN, WRITTEN]
        (read,) = plain.read([str(new.external_id)])
        assert read.payload["Description"] == "baru"
        plain.close()
