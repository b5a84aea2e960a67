"""Writing contacts: single, in batches, repeated, rewritten, refused."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from crm_pipeline.simulators.generic import CrmOptions, GenericCrm, RefusedError, Rewrite
from crm_pipeline.simulators.rewrite import RewriteError, parse_rewrite
from crm_pipeline_tests.simulators.conftest import Serve

NOW = datetime(2026, 1, 5, 10, tzinfo=UTC)


def test_create_answers_the_record_with_its_new_id(serve: Serve) -> None:
    """POST is 201 and the record as stored, unknown attributes kept, read-only ones passed over."""
    client = serve(GenericCrm.seeded(2))
    sent = {"phone": "6281009999999@c.us", "name": "New", "self": [42], "id": "1", "updated_at": "never"}
    answer = client.call("POST", json=sent)
    record = answer.json()
    assert answer.status_code == 201
    assert record["id"] == "100003"
    assert (
        record["updated_at"]
        == record["created_at"]
        > max(row["updated_at"] for row in client.crm.records.values() if row["id"] != "100003")
    )
    assert {name: record[name] for name in ("phone", "name", "self")} == {
        name: sent[name] for name in ("phone", "name", "self")
    }
    assert client.call("GET", "/100003").json() == record == client.crm.records["100003"]


def test_patch_changes_and_put_replaces(serve: Serve) -> None:
    """PATCH leaves other attributes alone and null clears; PUT leaves only what it brings."""
    client = serve(GenericCrm.seeded(1))
    before = client.crm.records["100001"]
    patched = client.call("PATCH", "/100001", json={"notes": None, "capacity": 0}).json()
    assert patched == before | {"notes": None, "capacity": 0, "updated_at": patched["updated_at"]}
    assert patched["updated_at"] > before["updated_at"]
    put = client.call("PUT", "/100001", json={"name": "Only"}).json()
    assert set(put) == {"id", "name", "created_at", "updated_at"}
    assert put["created_at"] == before["created_at"]


def test_delete_and_unknown_records(serve: Serve) -> None:
    """A deleted record is gone from reads, listings and lookups; an unknown one is 404 everywhere."""
    client = serve(GenericCrm.seeded(3))
    phone = client.crm.records["100002"]["phone"]
    assert client.call("DELETE", "/100002").status_code == 204
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        assert client.call(method, "/100002", json={}).status_code == 404
    assert [row["id"] for row in client.page().json()["records"]] == ["100001", "100003"]
    assert client.page(updated_since="0").json()["total"] == 2
    assert client.page(phone=phone).json()["records"] == []
    assert client.call("POST", json={}).json()["id"] == "100004"


@pytest.mark.parametrize("bare", [False, True])
def test_a_batch_answers_each_item_in_order(serve: Serve, bare: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """Items with an id change, others create, a wrong one fails alone."""
    client = serve(GenericCrm.seeded(2))
    items = [
        {"id": "100002", "notes": "a"},
        {"name": "New"},
        {"id": "nobody", "notes": "b"},
        {"capacity": -1},
        5,
    ]
    answer = client.call("POST", "/batch", json=items if bare else {"records": items})
    results = answer.json()["results"]
    assert answer.status_code == 200
    assert [result["status"] for result in results] == [200, 201, 404, 422, 422]
    assert [result["id"] for result in results] == ["100002", "100003", "nobody", None, None]
    assert results[0]["record"] == client.crm.records["100002"]
    assert results[0]["record"]["notes"] == "a"
    assert results[2]["error"]["code"] == "not_found"
    assert client.crm.calls == {"batch": 1}


def test_a_batch_has_a_limit_of_its_own(serve: Serve) -> None:
    """One item too many refuses the whole batch and applies none of it."""
    client = serve(GenericCrm.seeded(1, options=CrmOptions(batch_limit=2)))
    assert client.call("POST", "/batch", json=[{}, {}]).status_code == 200
    assert client.call("POST", "/batch", json=[{}, {}, {}]).status_code == 400
    assert client.call("POST", "/batch", json={"contacts": []}).status_code == 422
    assert len(client.crm.records) == 3


def test_content_the_crm_refuses(serve: Serve) -> None:
    """A wrong body is refused with a reason and changes nothing."""
    client = serve(GenericCrm.seeded(1))
    before = dict(client.crm.records)
    wrong = {
        b"{": 400,
        b'"text"': 422,
        b'{"ticket_price": -1}': 422,
        b'{"capacity": 1.5}': 422,
        b'{"ticket_price": "1"}': 422,
        b'{"notes": "' + b"x" * 5_001 + b'"}': 422,
    }
    for body, status in wrong.items():
        for method, below in (("POST", ""), ("PATCH", "/100001"), ("PUT", "/100001")):
            answer = client.call(method, below, data=body)
            assert answer.status_code == status, (method, body[:30])
            assert answer.json()["error"]["message"]
    assert dict(client.crm.records) == before


def test_stamps_strictly_increase_while_the_clock_stands_still() -> None:
    """Two changes never share an instant, even when the clock does not move or goes back."""
    crm = GenericCrm.seeded(3, clock=lambda: NOW)
    crm.edit("100001", notes="a")
    crm.create(name="b")
    crm.replace("100002", name="c")
    changed = [crm.records[record_id]["updated_at"] for record_id in ("100001", "100004", "100002")]
    assert all(earlier < later for earlier, later in pairwise(changed))
    assert changed[0] >= "2026-01-05T10:00:00.000000Z"


def test_writes_are_counted_and_logged_as_sent(serve: Serve) -> None:
    """The log has each write's body as it came, refused ones too; edits in the process are not logged."""
    client = serve(GenericCrm.seeded(2))
    client.crm.edit("100001", notes="by a person")
    client.call("PATCH", "/100001", json={"notes": " x "})
    client.call("PUT", "/nobody", json={"name": "y"})
    client.call("POST", "/batch", json={"records": [{"id": "100002", "notes": "z"}]})
    client.call("GET", "/100001")
    assert [
        (write.method, write.kind, write.id, write.payload, write.status) for write in client.crm.log
    ] == [
        ("PATCH", "update", "100001", {"notes": " x "}, 200),
        ("PUT", "update", "nobody", {"name": "y"}, 404),
        ("POST", "batch", None, {"records": [{"id": "100002", "notes": "z"}]}, 200),
    ]
    assert client.crm.calls == {"update": 2, "batch": 1, "read": 1}


def test_an_idempotency_key_is_honoured_when_the_crm_says_so(serve: Serve) -> None:
    """The same key on a POST gives the same answer and one record; without the option, two records."""
    key = {"Idempotency-Key": "k-1"}
    honouring = serve(GenericCrm(options=CrmOptions(idempotency=True)))
    first, second = (honouring.call("POST", json={"name": "A"}, headers=key) for _ in range(2))
    assert first.json() == second.json()
    honouring.call("POST", "/batch", json=[{"name": "B"}], headers=key)
    assert len(honouring.crm.records) == 2
    careless = serve(GenericCrm())
    for _ in range(2):
        careless.call("POST", json={"name": "A"}, headers=key)
    assert len(careless.crm.records) == 2


def test_a_unique_value_may_be_enforced(serve: Serve) -> None:
    """With the option a second record of one phone is 409, singly and in a batch; without it, it is taken."""
    client = serve(GenericCrm.seeded(2, options=CrmOptions(unique_enforced=True)))
    taken = {"phone": client.crm.records["100001"]["phone"]}
    assert client.call("POST", json=taken).status_code == 409
    assert client.call("PATCH", "/100002", json=taken).status_code == 409
    assert client.call("PATCH", "/100001", json=taken).status_code == 200
    assert client.call("POST", "/batch", json=[taken]).json()["results"][0]["status"] == 409
    with pytest.raises(RefusedError):
        client.crm.create(**taken)
    assert len(client.crm.records) == 2
    careless = GenericCrm.seeded(1)
    careless.create(**taken)
    assert len(careless.records) == 2


def test_a_crm_may_rewrite_what_it_is_given(serve: Serve) -> None:
    """Blanks, case, phones, seconds and long notes come back as the CRM likes them; lookups still find."""
    rewrite = Rewrite(trim=True, lower=True, phones=True, drop_seconds=True, notes_max=10)
    client = serve(GenericCrm(options=CrmOptions(rewrite=rewrite)))
    sent = {
        "phone": "6281009999999@c.us",
        "phone_1": "0810-0999-9999",
        "name": "  Two   words ",
        "instagram": "@Some.One",
        "meeting_date": "2026-02-03T04:05:06.789Z",
        "notes": "longer than ten",
        "capacity": 7,
        "whatsapp_id": "1234@lid",
    }
    record = client.call("POST", json=sent).json()
    assert {name: record[name] for name in sent} == {
        "phone": "+6281009999999",
        "phone_1": "+6281009999999",
        "name": "Two words",
        "instagram": "@some.one",
        "meeting_date": "2026-02-03T04:05:00Z",
        "notes": "longer tha",
        "capacity": 7,
        "whatsapp_id": "1234@lid",
    }
    assert client.page(phone=sent["phone"]).json()["records"] == [record]


def test_rewriting_is_spelt_as_documented() -> None:
    """Every habit can be named, ``all`` has them all, a mistake lists what there is."""
    assert parse_rewrite([]) == Rewrite()
    assert parse_rewrite(["trim", "notes_max=7"]) == Rewrite(trim=True, notes_max=7)
    every = Rewrite(trim=True, lower=True, phones=True, drop_seconds=True, notes_max=200)
    assert parse_rewrite(["all"]) == every
    for wrong in ("upper", "notes_max", "notes_max=0", "trim=1", ""):
        with pytest.raises(RewriteError, match="choose from trim"):
            parse_rewrite([wrong])


@pytest.mark.parametrize("options", [CrmOptions(wrap="contact"), CrmOptions(envelope="jsonapi")])
def test_single_records_may_be_wrapped(serve: Serve, options: CrmOptions) -> None:
    """With a key around single records, requests need it and answers have it; lists do not change."""
    client = serve(GenericCrm.seeded(1, options=options))
    key = options.wrap or "data"
    read = client.call("GET", "/100001").json()
    attributes = read[key]["attributes"] if options.envelope == "jsonapi" else read[key]
    assert attributes["phone"] == "6281000000000@c.us"
    item = {"attributes": {"notes": "n"}} if options.envelope == "jsonapi" else {"notes": "n"}
    assert client.call("PATCH", "/100001", json={key: item}).json()[key]["id"] == "100001"
    assert client.crm.records["100001"]["notes"] == "n"
    assert client.call("PATCH", "/100001", json={"notes": "n"}).status_code == 422


def test_records_of_ones_own() -> None:
    """A test may bring its records: given ids and times are kept, missing ones filled in, doubles refused."""
    given = [{"id": "7", "updated_at": "2026-01-05T17:00:00+07:00", "name": "A"}, {"name": "B"}]
    crm = GenericCrm(given, clock=lambda: NOW)
    assert crm.records["7"] == {"id": "7", "name": "A", "updated_at": "2026-01-05T10:00:00.000000Z"}
    assert [record["name"] for record in crm.records.values()] == ["A", "B"]
    assert len(crm.create()["id"]) > 0
    assert len(crm.records) == 3
    with pytest.raises(ValueError, match="share an id"):
        GenericCrm([{"id": "7"}, {"id": 7}])


def test_a_lookup_without_lag_finds_at_once_while_the_clock_stands_still() -> None:
    """A new record is found by its phone in the same instant."""
    crm = GenericCrm.seeded(2, clock=lambda: NOW)
    for number in range(3):
        record = crm.create(phone=f"628100999999{number}@c.us")
        assert [row.id for row in crm.lookup(record["phone"])] == [record["id"]]
