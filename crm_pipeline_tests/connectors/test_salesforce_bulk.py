"""Salesforce's jobs for very many writes: every row's fate is read; what is not certain is not claimed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from crm_pipeline.connectors import connect
from crm_pipeline.connectors.base import (
    Bulk,
    CrmAnswerError,
    CrmRefusedError,
    JobRefusedError,
    Write,
    WriteResult,
)
from crm_pipeline.simulators.faults import parse_faults
from crm_pipeline_tests.connectors.servers import Reply, Seen, reply, serving
from crm_pipeline_tests.connectors.vendors import Account, account, preset
from crm_pipeline_tests.connectors.writes import FAILED, GONE, REFUSED, UNKNOWN, WRITTEN, statuses

FROM_THREE: dict[str, Any] = {"writing": {"bulk_from": 3}}


def edit(made: Account, number: int, **fields: Any) -> Write:
    """A change of the contact that was made so many-th."""
    return Write(f"e{number}", made.crm.vendor.make_id(number), fields)


def new(number: int, **fields: Any) -> Write:
    """A contact the org does not have."""
    return Write(f"n{number}", None, {"Chat_Id__c": f"62811000{number}@c.us", **fields})


def jobs_of(made: Account) -> Bulk:
    """The account's jobs."""
    assert made.connector.bulk is not None
    return made.connector.bulk


def done(made: Account, writes: Sequence[Write]) -> list[WriteResult]:
    """Send writes as one job."""
    bulk = jobs_of(made)
    return bulk.send(bulk.open(writes), writes)


def test_changes_are_settled_row_by_row() -> None:
    """Written, refused with the reason, gone; the results come in an order of their own."""
    with account("salesforce", 30, sections=FROM_THREE, job_seconds=0) as made:
        made.crm.delete(made.crm.vendor.make_id(9))
        writes = [
            *(edit(made, number, Capacity__c=number * 10) for number in range(1, 8)),
            edit(made, 8, Deal_Status__c="hot", Description="x"),
            edit(made, 9, Description="x"),
            edit(made, 10, Capacity__c=None, Description=""),
        ]
        results = done(made, writes)
        assert statuses(results) == [WRITTEN] * 7 + [REFUSED, GONE, WRITTEN]
        assert results[7].reason.endswith("(INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST, Deal_Status__c)")
        third, tenth = (made.crm.fields(made.crm.row(made.crm.vendor.make_id(each))) for each in (3, 10))
        assert third["Capacity__c"] == 30
        assert third["LastName"]  # an empty cell leaves a field alone
        assert tenth.keys().isdisjoint({"Capacity__c", "Description"})
        assert made.connector.calls == 6  # open, upload, close, look, two lists of results


def test_creates_are_found_by_their_external_id() -> None:
    """One that is there already is changed; a bad one is refused; all ids are the org's."""
    with account("salesforce", 0, sections=FROM_THREE, job_seconds=0) as made:
        known = made.crm.create(LastName="Uji", Chat_Id__c="628110001@c.us")["id"]
        results = done(made, [new(1, LastName="Satu"), new(2, LastName="Dua"), new(3, Capacity__c=3)])
        assert statuses(results) == [WRITTEN, WRITTEN, REFUSED]
        assert results[0].external_id == known
        assert "REQUIRED_FIELD_MISSING, LastName" in results[2].reason
        assert len(made.crm.shelf) == 2


AWKWARD = [
    'a "quote", a comma',
    "two\nlines",
    "a\rreturn",
    "a\r\npair",
    " blanks ",
    "=1+1",
    "é你好😀",
    "'; --",
]


def test_text_goes_through_csv_unharmed() -> None:
    """Quotes, commas, line ends of all kinds, and no value taken for a formula."""
    with account("salesforce", len(AWKWARD), sections=FROM_THREE, job_seconds=0) as made:
        writes = [edit(made, number, Description=text) for number, text in enumerate(AWKWARD, start=1)]
        assert set(statuses(done(made, writes))) == {WRITTEN}
        kept = [made.crm.fields(made.crm.row(str(write.external_id)))["Description"] for write in writes]
        assert kept == [text.strip() for text in AWKWARD]


def test_a_job_carries_one_kind_and_only_what_csv_can_say() -> None:
    """Few writes, odd ids, values within values and the word for nothing go in batches."""
    with account("salesforce", 5, sections=FROM_THREE) as made:
        bulk = jobs_of(made)
        edits = [edit(made, number, Description="x") for number in (1, 2, 3)]
        assert bulk.portion(edits[:2]) == []
        assert bulk.portion([new(1), *edits, new(2)]) == [1, 2, 3]
        assert bulk.portion([new(1), edits[0], new(2), new(3)]) == [0, 2, 3]
        odd = [
            Write("a", "not-an-id", {"Description": "x"}),
            edit(made, 4, Account={"Name": "x"}),
            edit(made, 5, Description="#N/A"),
            edit(made, 5, Description="nul\0"),
            Write("b", None, {"LastName": "Uji"}),
        ]
        assert bulk.portion([*odd, *edits]) == [5, 6, 7]
        wide = [edit(made, number, Description="x" * 3_000_000) for number in (1, 2, 3, 4)]
        assert bulk.portion(wide) == [0, 1]


@pytest.mark.parametrize(
    "faults, expected",
    [
        ("server_error=1", FAILED),  # of the upload: nobody closed the job
        ("rate_limit=1", FAILED),
        ("cut_before_write=1", FAILED),
        ("cut_after_write=2", UNKNOWN),  # of the closing: it works, but we gave up looking
        ("truncated_json=1", UNKNOWN),
        ("html_login=4", UNKNOWN),
    ],
)
def test_what_is_not_certain_is_not_claimed(faults: str, expected: str) -> None:
    """Before the job is closed nothing is written; after it, what the CRM did not say is unknown."""
    with account("salesforce", 5, sections=FROM_THREE, job_seconds=0) as made:
        writes = [edit(made, number, Description="x") for number in (1, 2, 3)]
        bulk = jobs_of(made)
        job = bulk.open(writes)
        made.crm.faults = parse_faults([faults])
        assert set(statuses(bulk.send(job, writes))) <= {expected, WRITTEN}
        made.crm.faults = parse_faults([])
        settled = bulk.settle(job, writes)
        assert settled is not None
        assert set(statuses(settled)) <= {WRITTEN, UNKNOWN, FAILED}
        changed = {
            row.id for row in made.crm.shelf.all().cut(0, 5) if made.crm.fields(row).get("Description") == "x"
        }
        if FAILED in statuses(settled):
            assert not changed


def test_a_job_that_was_not_closed_is_given_up() -> None:
    """Its rows were never written, and never will be."""
    with account("salesforce", 5, sections=FROM_THREE, job_seconds=0) as made:
        writes = [edit(made, number, Description="x") for number in (1, 2, 3)]
        job = jobs_of(made).open(writes)
        assert set(statuses(jobs_of(made).settle(job, writes) or [])) == {FAILED}
        with pytest.raises(JobRefusedError):
            jobs_of(made).send(job, writes)


def test_a_job_at_work_is_asked_again_later() -> None:
    """After some minutes a later run goes on asking; a job nobody knows any more says nothing."""
    with account("salesforce", 5, sections=FROM_THREE, job_seconds=3600) as made:
        writes = [edit(made, number, Description="x") for number in (1, 2, 3)]
        bulk = jobs_of(made)
        job = bulk.open(writes)
        assert set(statuses(bulk.send(job, writes))) == {UNKNOWN}
        assert 540 < sum(made.waits) < 660
        assert bulk.settle(job, writes) is None
        assert set(statuses(bulk.settle("750xx9999999999AAA", writes) or [])) == {UNKNOWN}
        assert set(statuses(bulk.settle("../limits", writes) or [])) == {UNKNOWN}


def test_a_job_that_fails_as_a_whole_is_refused() -> None:
    """A field the org does not have: nothing was written, and batches will say of each row why."""
    with account("salesforce", 5, sections=FROM_THREE, job_seconds=0) as made:
        writes = [edit(made, number, Nowhere__c="x") for number in (1, 2, 3)]
        with pytest.raises(JobRefusedError):
            done(made, writes)


def test_an_org_without_jobs_is_told_from_one_that_refuses_us() -> None:
    """Without jobs there are batches; with a wrong key there is nothing."""
    with account("salesforce", 3, sections=FROM_THREE) as made:
        writes = [edit(made, number, Description="x") for number in (1, 2, 3)]
        other = connect(preset("salesforce", made.url, **FROM_THREE), "wrong-key")
        assert other.bulk is not None
        with pytest.raises(CrmRefusedError):
            other.bulk.open(writes)
        other.close()


ONE = "003xx0000000001AAA"
TWO = "003xx0000000002AAA"
GOOD = f"sf__Id,sf__Created,Id,Description\n{ONE},false,{ONE},x\n"


@pytest.mark.parametrize(
    "successes, expected",
    [
        (GOOD, [WRITTEN, UNKNOWN]),
        (f"{GOOD}{TWO},false,{TWO},x\n", [WRITTEN, WRITTEN]),
        (f"{GOOD}{ONE},false,{ONE},x\n", [UNKNOWN, UNKNOWN]),  # one record twice
        (f"{GOOD}{ONE},false,{TWO},x\n", [WRITTEN, UNKNOWN]),  # another record's id
        (f"{GOOD}003xx0000000009AAA,false,003xx0000000009AAA,x\n", [WRITTEN, UNKNOWN]),
        (f"{GOOD}{TWO}", [WRITTEN, UNKNOWN]),
        (f'{GOOD}{TWO},false,{TWO},"x', [UNKNOWN, UNKNOWN]),  # broken off inside a text
        (f"{GOOD},,,,,,,,,\n", [WRITTEN, UNKNOWN]),
        (f"{GOOD}\0,\0,{TWO},x\n", [WRITTEN, UNKNOWN]),
        (f"\ufeff{GOOD}", [WRITTEN, UNKNOWN]),
        ("", [UNKNOWN, UNKNOWN]),
        ("<!doctype html><title>Sign in</title>", [UNKNOWN, UNKNOWN]),
        ('{"records": []}', [UNKNOWN, UNKNOWN]),
        (b"sf__Id,sf__Created,Id\n\xff\xfe", [UNKNOWN, UNKNOWN]),
        ("Id,Id,sf__Id\n" + "x" * 200_000, [UNKNOWN, UNKNOWN]),
    ],
)
def test_results_that_are_not_whole_leave_rows_unknown(successes: str | bytes, expected: list[str]) -> None:
    """A row is written only where a result says so of the very record; the rest is read back."""
    body = successes if isinstance(successes, bytes) else successes.encode()

    def answer(seen: Seen) -> Reply:
        if seen.path.endswith("successfulResults/"):
            return reply(200, body)
        if seen.path.endswith(("failedResults/", "unprocessedrecords/")):
            return reply(200, b"")
        if seen.method == "GET":
            return reply(200, {"state": "JobComplete", "numberRecordsFailed": "none"})
        return reply(201 if seen.method == "PUT" else 200, {"id": "750xx0000000001AAA", "state": "Open"})

    with serving(answer) as server:
        connector = connect(preset("salesforce", server.url, **FROM_THREE), "key", sleep=lambda _: None)
        writes = [Write(each, each, {"Description": "x"}) for each in (ONE, TWO)]
        assert connector.bulk is not None
        assert statuses(connector.bulk.send(connector.bulk.open(writes), writes)) == expected
        connector.close()


@pytest.mark.parametrize(
    "told",
    [{"id": 5}, {"id": "750/../x"}, {"id": "750xx0000000001AAA?x=1"}, {}, [], "750xx0000000001AAA", None],
)
def test_only_an_id_names_a_job(told: Any) -> None:
    """It becomes a part of addresses."""
    with serving(lambda _seen: reply(200, told)) as server:
        connector = connect(preset("salesforce", server.url, **FROM_THREE), "key")
        assert connector.bulk is not None
        with pytest.raises(CrmAnswerError):
            connector.bulk.open([Write("a", ONE, {"Description": "x"})])
        connector.close()
