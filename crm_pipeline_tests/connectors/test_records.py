"""Records inside answers: where they are, which they are, and when they changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import CrmAnswerError
from crm_pipeline.connectors.records import RecordReader, instant
from crm_pipeline.jsonio import LONGEST_KEY
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import FieldMapping
from crm_pipeline_tests.connectors.conftest import Connect, Serve
from crm_pipeline_tests.connectors.servers import reply

JAKARTA = ZoneInfo("Asia/Jakarta")
ONE = {"id": "1", "name": "a"}


def reader(**sections: Any) -> RecordReader:
    """A reader of a connection with these sections."""
    return RecordReader(Connection(base_url="https://crm.example", **sections))


@pytest.mark.parametrize(
    "body",
    [
        [ONE],
        {"records": [ONE], "total": 1},
        {"data": [ONE], "meta": {}},
        {"results": [ONE]},
        {"items": [ONE]},
        {"value": [ONE], "@odata.count": 1},
        {"contacts": [ONE]},
        {"_embedded": {"contacts": [ONE]}, "_links": {}},
        {"data": {"items": [ONE]}},
        {"success": True, "data": {"contacts": [ONE]}},
        {"data": [{"type": "contacts", "id": "1", "attributes": {"name": "a"}}]},
    ],
)
def test_envelopes_are_detected(body: Any) -> None:
    """The list of records is found under every common name."""
    (record,) = reader().page(body)
    assert record.external_id == "1"
    assert record.payload["name"] == "a"


def test_configured_path_wins() -> None:
    """A configured place is the only place."""
    body = {"data": {"people": {"list": [ONE]}}, "records": []}
    assert len(reader(records={"path": "data.people.list"}).page(body)) == 1
    with pytest.raises(CrmAnswerError):
        reader(records={"path": "nowhere"}).page(body)


@pytest.mark.parametrize(
    "body", [{}, {"message": "hello"}, "text", 5, None, {"records": {"id": 1}}, {"records": 0}]
)
def test_no_list_is_no_empty_page(body: Any) -> None:
    """An answer without records is an error, never an empty listing."""
    with pytest.raises(CrmAnswerError, match=r"records\.path"):
        reader().page(body)


def test_null_list_is_an_empty_page() -> None:
    """A null where the list should be is how some servers write an empty one."""
    assert reader().page({"records": None, "total": 0}) == []


def test_json_api_is_flattened_and_the_id_kept() -> None:
    """Attributes stand where everybody else has them, and win over what is beside them, but for the id."""
    item = {"type": "contacts", "id": "7", "attributes": {"name": "a", "id": "x"}, "links": {"self": "/7"}}
    record = reader().record(item)
    assert record.external_id == "7"
    assert record.payload == {"type": "contacts", "id": "7", "name": "a", "links": {"self": "/7"}}


@pytest.mark.parametrize("payload", [None, 5, "x", ["id"], True])
def test_odd_records_are_kept(payload: Any) -> None:
    """What is no object is passed on as it is, for a reject further on."""
    record = reader().record(payload)
    assert (record.payload, record.external_id) == (payload, None)


@pytest.mark.parametrize(
    "payload,external_id",
    [
        ({"id": "a/b"}, "a/b"),
        ({"id": 12}, "12"),
        ({"id": 12.0}, "12"),
        ({"id": 0}, "0"),
        ({"id": 1.5}, None),
        ({"id": 1e30}, None),
        ({"id": True}, None),
        ({"id": ""}, None),
        ({"id": None, "uuid": "u"}, "u"),
        ({"external_id": "e", "uuid": "u"}, "e"),
        ({"id": {"value": 1}}, None),
        ({}, None),
    ],
)
def test_ids(payload: dict[str, Any], external_id: str | None) -> None:
    """The first id present wins; what cannot be one exactly is none."""
    assert reader().record(payload).external_id == external_id


def test_id_and_modified_by_path() -> None:
    """Paths may lead into a record."""
    made = reader(records={"id": ["meta.key"], "modified": ["meta.times.0"], "deleted": "meta.gone"})
    record = made.record({"meta": {"key": 5, "times": ["2026-01-31T09:00:00Z"], "gone": True}})
    assert (record.external_id, record.deleted) == ("5", True)
    assert record.modified_at == datetime(2026, 1, 31, 9, tzinfo=UTC)


@pytest.mark.parametrize("value,deleted", [(True, True), ("2026-01-31", True), (1, True), ("yes", True)])
@pytest.mark.parametrize("none", [None, False, 0, "", "false", "0", "No"])
def test_deletion(value: Any, deleted: bool, none: Any) -> None:  # noqa: FBT001
    """A true value marks a deletion, in words as well."""
    made = reader(records={"deleted": "gone"})
    assert made.record({"id": 1, "gone": value}).deleted is deleted
    assert made.record({"id": 1, "gone": none}).deleted is False


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-31T09:00:00Z",
        "2026-01-31T09:00:00.000+0000",
        "2026-01-31T16:00:00+07:00",
        "2026-01-31 16:00:00",
        "2026-01-31T16:00:00.000000000",
        1769850000,
        "1769850000",
        1769850000000,
        "1769850000000",
        1769850000.0,
    ],
)
def test_times_in_every_form(value: Any) -> None:
    """ISO with and without a zone, epoch and milliseconds are one and the same moment."""
    assert instant(value, JAKARTA) == datetime(2026, 1, 31, 9, tzinfo=UTC)


@pytest.mark.parametrize("value", ["20260131", "2026-01-31"])
def test_dates_are_midnight_in_the_zone(value: str) -> None:
    """A date alone is its midnight where the CRM is."""
    assert instant(value, JAKARTA) == datetime(2026, 1, 30, 17, tzinfo=UTC)


@pytest.mark.parametrize("value", ["yesterday", "", True, {}, [], 1e300, float("nan"), "9" * 30, -(10**18)])
def test_unreadable_times_are_none(value: Any) -> None:
    """A record with a time nobody can read is a record without one."""
    assert reader().record({"id": 1, "updated_at": value}).modified_at is None


@pytest.mark.parametrize(
    "body,external_id",
    [
        (ONE, "1"),
        ({"data": ONE}, "1"),
        ({"record": ONE, "success": True}, "1"),
        ({"data": {"type": "contacts", "id": "1", "attributes": {"name": "a"}}}, "1"),
        ({**ONE, "data": {"id": "other"}}, "1"),
        ({"name": "a"}, None),
    ],
)
def test_single_records_are_unwrapped(body: Any, external_id: str | None) -> None:
    """An answer about one record holds it at its top or in a usual wrapper."""
    record = reader().single(body)
    assert record is not None
    assert record.external_id == external_id


@pytest.mark.parametrize("body", ["broken", 7, None])
def test_a_record_that_is_none_any_more_is_given_as_it_is(
    body: Any, serve: Serve, connector: Connect
) -> None:
    """It becomes a reject of its own further on; the others are read all the same."""
    answers = {"1": body, "2": {"id": "2", "name": "Budi"}}
    server = serve(lambda seen: reply(200, answers[seen.path.rpartition("/")[2]]))
    broken, good = connector(server.url).read(["1", "2"])
    assert (broken.external_id, broken.payload) == ("1", body)
    assert good.payload["name"] == "Budi"


@pytest.mark.parametrize("odd", ["n\ud800", "a\0b", "x" * (LONGEST_KEY + 1)], ids=["half", "nul", "long"])
def test_an_id_no_database_can_hold_sets_its_record_aside(odd: str) -> None:
    """The record is kept whole, and rejected by name further on; nothing is made of its phone."""
    item = {"id": odd, "phone": "628110000001"}
    record = reader().record(item)
    assert (record.payload, record.external_id) == ([item], None)
    with pytest.raises(RecordRejected) as rejected:
        FieldMapping(Connection()).to_contact(record.payload)
    assert list(rejected.value.reasons) == ["id"]


def test_the_longest_id_that_is_kept() -> None:
    """It is an id like any other."""
    longest = "x" * LONGEST_KEY
    assert reader().record({"id": longest}).external_id == longest
