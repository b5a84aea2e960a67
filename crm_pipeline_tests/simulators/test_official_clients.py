"""The vendors' own clients drive the simulated accounts: what they make of an answer is what it means."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from crm_pipeline.simulators.serve import running
from crm_pipeline.simulators.vendor import VendorCrm, VendorOptions
from crm_pipeline.simulators.vendors import SIMULATIONS

LOOPBACK = "https://127.0.0.1"


@contextlib.contextmanager
def served(kind: str, count: int, **options: Any) -> Iterator[tuple[VendorCrm, str]]:
    """A simulated account on a port."""
    simulation = SIMULATIONS[kind]
    made = VendorOptions(**{"burst": 100_000, "searches": 1_000, **options})
    crm = VendorCrm.seeded(simulation.vendor, count, options=made)
    with running(simulation.app(crm)) as url:
        yield crm, url


class TestHubSpot:
    """``hubspot-api-client``."""

    @pytest.fixture
    def account(self) -> Iterator[tuple[VendorCrm, Any]]:
        """An account and a client of it."""
        import hubspot  # noqa: PLC0415 - slow to import

        with served("hubspot", 230) as (crm, url):
            yield crm, hubspot.Client.create(access_token="sim-key", host=url)

    def test_lists_and_searches(self, account: tuple[VendorCrm, Any]) -> None:
        """Every contact comes by the client's own paging; a search finds what changed since."""
        from hubspot.crm.contacts import PublicObjectSearchRequest  # noqa: PLC0415

        crm, client = account
        everything = client.crm.contacts.get_all(properties=["chat_id", "capacity"])
        assert len(everything) == len({each.id for each in everything}) == 230
        assert everything[0].properties["chat_id"] == crm.fields(crm.row("1"))["chat_id"]
        assert isinstance(everything[0].properties["capacity"], str)
        time = {"propertyName": "lastmodifieddate", "operator": "GTE", "value": "0"}
        asked = PublicObjectSearchRequest(
            filter_groups=[{"filters": [time]}], sorts=["lastmodifieddate"], limit=200, after="0"
        )
        page = client.crm.contacts.search_api.do_search(public_object_search_request=asked)
        assert (page.total, len(page.results), page.paging.next.after) == (230, 200, "200")

    def test_writes_one_and_many(self, account: tuple[VendorCrm, Any]) -> None:
        """Created, changed, archived; a batch's bad row is an error of its own with its trace."""
        from hubspot.crm.contacts import ApiException, SimplePublicObjectInput  # noqa: PLC0415

        crm, client = account
        basic, batch = client.crm.contacts.basic_api, client.crm.contacts.batch_api
        new = {"properties": {"chat_id": "628110001@c.us", "lastname": "Uji"}}
        made = basic.create(simple_public_object_input_for_create=new)
        basic.update(made.id, SimplePublicObjectInput(properties={"notes": "baru"}))
        assert crm.fields(crm.row(made.id))["notes"] == "baru"
        with pytest.raises(ApiException, match=f"Existing ID: {made.id}") as refused:
            basic.create(simple_public_object_input_for_create=new)
        assert refused.value.status == 409
        inputs = [
            {"id": "1", "objectWriteTraceId": "a", "properties": {"notes": "satu"}},
            {"id": "2", "objectWriteTraceId": "b", "properties": {"capacity": "many"}},
        ]
        answer = batch.update(batch_input_simple_public_object_batch_input={"inputs": inputs})
        assert [each.id for each in answer.results] == ["1"]
        assert answer.errors[0].context == {"objectWriteTraceId": ["b"]}
        basic.archive(made.id)
        gone = basic.get_page(archived=True).results
        assert [(each.id, each.archived) for each in gone] == [(made.id, True)]

    def test_tokens(self, account: tuple[VendorCrm, Any]) -> None:
        """A refresh token gives an access token that the API takes."""
        import hubspot  # noqa: PLC0415

        crm, client = account
        host = client.config["host"]
        asked = hubspot.Client.create(host=host).oauth.tokens_api.create(
            grant_type="refresh_token",
            client_id="sim-client",
            client_secret="sim-secret",
            refresh_token="sim-refresh",
        )
        other = hubspot.Client.create(access_token=asked.access_token, host=host)
        assert len(other.crm.contacts.basic_api.get_page(limit=5).results) == 5
        assert crm.tokens.issued == 1


class _ToPlainHttp(HTTPAdapter):
    """simple-salesforce always speaks https: bring it to the loopback port."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        request.url = str(request.url).replace("https://", "http://", 1)
        return super().send(request, *args, **options)


class TestSalesforce:
    """``simple-salesforce``."""

    @pytest.fixture
    def org(self) -> Iterator[tuple[VendorCrm, Any]]:
        """An org and a client of it."""
        from simple_salesforce.api import Salesforce  # noqa: PLC0415

        with served("salesforce", 2_300, job_seconds=0) as (crm, url), requests.Session() as session:
            session.trust_env = False
            session.mount(LOOPBACK, _ToPlainHttp())
            secure = url.replace("http://", "https://")
            yield crm, Salesforce(instance_url=secure, session_id="sim-key", version="58.0", session=session)

    def test_queries(self, org: tuple[VendorCrm, Any]) -> None:
        """Every contact comes by the client's own cursor; deleted ones with queryAll only."""
        crm, client = org
        query = "SELECT Id, LastName, Capacity__c, SystemModstamp FROM Contact"
        assert len(client.query_all(query)["records"]) == 2_300
        crm.delete(crm.vendor.make_id(3))
        assert client.query_all(query)["totalSize"] == 2_299
        gone = client.query_all(f"{query} WHERE IsDeleted = true", include_deleted=True)["records"]
        assert [each["Id"] for each in gone] == [crm.vendor.make_id(3)]

    def test_writes(self, org: tuple[VendorCrm, Any]) -> None:
        """Created, changed, upserted by external id, deleted; errors as the client reads them."""
        from simple_salesforce.exceptions import SalesforceMalformedRequest, SalesforceResourceNotFound  # noqa: PLC0415

        crm, client = org
        made = client.Contact.create({"LastName": "Uji", "Chat_Id__c": "628110001@c.us"})
        assert made["success"]
        assert client.Contact.update(made["id"], {"Description": "baru"}) == 204
        assert client.Contact.upsert("Chat_Id__c/628110001@c.us", {"LastName": "Dua"}) == 200
        assert client.Contact.upsert("Chat_Id__c/628110002@c.us", {"LastName": "Tiga"}) == 201
        assert crm.fields(crm.row(made["id"]))["LastName"] == "Dua"
        with pytest.raises(SalesforceMalformedRequest) as refused:
            client.Contact.create({"FirstName": "x"})
        content: Any = refused.value.content
        assert content[0]["errorCode"] == "REQUIRED_FIELD_MISSING"
        assert client.Contact.delete(made["id"]) == 204
        with pytest.raises(SalesforceResourceNotFound):
            client.Contact.get(made["id"])

    def test_jobs(self, org: tuple[VendorCrm, Any]) -> None:
        """Inserted, changed and upserted by jobs; every row's result is in one of three lists."""
        from simple_salesforce.exceptions import SalesforceOperationError  # noqa: PLC0415

        crm, client = org
        rows = [
            {"LastName": f"Uji {n}", "Chat_Id__c": f"62811{n:04d}@c.us", "Capacity__c": "5"} for n in range(9)
        ]
        (made,) = client.bulk2.Contact.insert(records=[*rows, {"FirstName": "x"}], wait=0)
        assert (made["numberRecordsProcessed"], made["numberRecordsFailed"]) == (10, 1)
        failed = client.bulk2.Contact.get_failed_records(made["job_id"])
        assert "REQUIRED_FIELD_MISSING" in failed
        written = client.bulk2.Contact.get_successful_records(made["job_id"]).splitlines()
        assert len(written) == 10
        own = crm.by_unique("628110001@c.us")
        assert own is not None
        client.bulk2.Contact.update(records=[{"Id": own.id, "Capacity__c": "#N/A", "LastName": ""}], wait=0)
        assert "Capacity__c" not in crm.fields(crm.row(own.id))
        assert crm.fields(crm.row(own.id))["LastName"] == "Uji 1"
        new = {"Chat_Id__c": "62899@c.us", "LastName": "Lain"}
        (made,) = client.bulk2.Contact.upsert(
            records=[{**rows[1], "LastName": "Dua"}, new], external_id_field="Chat_Id__c", wait=0
        )
        assert made["numberRecordsFailed"] == 0
        assert crm.fields(crm.row(own.id))["LastName"] == "Dua"
        with pytest.raises(SalesforceOperationError, match="Field name not found : Nowhere__c"):
            client.bulk2.Contact.insert(records=[{"LastName": "Uji", "Nowhere__c": "x"}], wait=0)

    def test_a_job_is_given_up(self, org: tuple[VendorCrm, Any]) -> None:
        """Before it is closed nothing is written, and afterwards nothing can be added."""
        from simple_salesforce.bulk2 import Operation  # noqa: PLC0415
        from simple_salesforce.exceptions import SalesforceMalformedRequest  # noqa: PLC0415

        crm, client = org
        jobs = client.bulk2.Contact._client  # noqa: SLF001 - the client's only way to a single step
        job = jobs.create_job(Operation.insert)["id"]
        jobs.upload_job_data(job, "LastName\nUji\n")
        with pytest.raises(SalesforceMalformedRequest, match="INVALIDJOBSTATE"):
            jobs.upload_job_data(job, "LastName\nUji\n")
        assert jobs.abort_job(job, is_query=False)["state"] == "Aborted"
        assert client.bulk2.Contact.get_unprocessed_records(job).split() == ['"LastName"', '"Uji"']
        with pytest.raises(SalesforceMalformedRequest, match="INVALIDJOBSTATE"):
            jobs.close_job(job)
        assert len(crm.shelf) == 2_300

    def test_describes_and_counts(self, org: tuple[VendorCrm, Any]) -> None:
        """The fields, the limits, and how much of the day is used."""
        _, client = org
        names = {each["name"] for each in client.Contact.describe()["fields"]}
        assert {"Chat_Id__c", "LastName", "SystemModstamp"} <= names
        assert client.limits()["DailyApiRequests"]["Max"] == 250_000
        assert client.api_usage["api-usage"].total == 250_000


def test_zoho(tmp_path: Path) -> None:
    """``zohocrmsdk8-0``: tokens, page tokens, rows by place, deleted records."""
    program = Path(__file__).with_name("zoho_client.py")
    with served("zoho", 450) as (crm, url):
        done = subprocess.run(
            (sys.executable, str(program), url, str(tmp_path)), capture_output=True, text=True, check=True
        )
        assert (crm.tokens.issued, crm.calls["list"]) == (1, 3)
    told = json.loads(done.stdout)
    new = told.pop("new")
    assert isinstance(told.pop("capacity"), int)
    assert told == {
        "read": 450,
        "created": ["SUCCESS"],
        "updated": ["SUCCESS", "INVALID_DATA"],
        "upserted": ["SUCCESS"],
        "unknown": 204,
        "deleted": ["SUCCESS"],
        "gone": [new],
    }
