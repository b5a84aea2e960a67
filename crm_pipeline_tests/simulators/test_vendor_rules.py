"""What the vendors' APIs do that surprises: the simulated accounts do it, too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from crm_pipeline.simulators.serve import running
from crm_pipeline.simulators.vendor import VendorCrm, VendorOptions
from crm_pipeline.simulators.vendors import SIMULATIONS

HUB, SF, ZOHO = "/crm/v3/objects/contacts", "/services/data/v67.0", "/crm/v8"


class Caller:
    """Somebody with the right token."""

    def __init__(self, crm: VendorCrm, url: str, scheme: str) -> None:
        self.crm, self._url, self._scheme = crm, url, scheme

    def __call__(self, method: str, path: str, *, scheme: str = "", **options: Any) -> requests.Response:
        """Send a request."""
        headers = {"Authorization": f"{scheme or self._scheme} sim-key", **options.pop("headers", {})}
        return requests.request(method, self._url + path, headers=headers, timeout=10, **options)


@contextlib.contextmanager
def serving(kind: str, count: int = 0, **options: Any) -> Iterator[Caller]:
    """An account on a port."""
    simulation = SIMULATIONS[kind]
    crm = VendorCrm.seeded(simulation.vendor, count, options=VendorOptions(**options))
    with running(simulation.app(crm)) as url:
        yield Caller(crm, url, "Zoho-oauthtoken" if kind == "zoho" else "Bearer")


def test_hubspot_shows_texts_and_only_what_is_asked_for() -> None:
    """Six properties by default, every value a text or null, unknown names left out, no paging at the end."""
    with serving("hubspot", 3) as call:
        page = call("GET", HUB).json()
        assert "paging" not in page
        names = {"createdate", "email", "firstname", "hs_object_id", "lastmodifieddate", "lastname"}
        assert page["results"][0]["properties"].keys() == names
        asked = call("GET", HUB, params={"properties": "capacity,nonsense,email"}).json()["results"][0]
        assert isinstance(asked["properties"]["capacity"], str)
        assert "nonsense" not in asked["properties"]
        assert asked["properties"]["email"] is None


def test_hubspots_search_ends_at_ten_thousand_and_lags() -> None:
    """400 beyond the depth, no rate headers, and what is new does not show yet."""
    with serving("hubspot", 3, search_lag=60.0) as call:
        assert call("POST", f"{HUB}/search", json={"limit": 200, "after": "9900"}).status_code == 400
        call.crm.create(lastname="Uji")
        found = call("POST", f"{HUB}/search", json={"limit": 200})
        assert found.json()["total"] == 3
        assert not [name for name in found.headers if "ratelimit" in name.lower()]
        assert "X-HubSpot-RateLimit-Remaining" in call("GET", HUB).headers


def test_hubspot_counts_a_rolling_window() -> None:
    """One call too many is a 429 that names its policy; searches have a limit of their own."""
    with serving("hubspot", 1, burst=3) as call:
        answers = [call("GET", HUB) for _ in range(4)]
        assert [each.status_code for each in answers] == [200, 200, 200, 429]
        assert answers[-1].json()["policyName"] == "TEN_SECONDLY_ROLLING"
    with serving("hubspot", 1, searches=2) as call:
        told = [call("POST", f"{HUB}/search", json={}) for _ in range(3)]
        assert told[-1].json()["policyName"] == "SECONDLY"


def test_hubspots_batches_are_refused_whole_or_answered_apart() -> None:
    """One id twice spoils a batch; without traces so does one bad row; a merge makes a new id."""
    with serving("hubspot", 3) as call:
        twice = {"inputs": [{"id": "1", "properties": {}}, {"id": "1", "properties": {}}]}
        assert call("POST", f"{HUB}/batch/update", json=twice).status_code == 400
        rows = [{"properties": {"lastname": "Uji"}}, {"properties": {"shoe": "9"}}]
        whole = call("POST", f"{HUB}/batch/create", json={"inputs": rows})
        assert (whole.status_code, "PROPERTY_DOESNT_EXIST" in whole.json()["message"]) == (400, True)
        merged = call("POST", f"{HUB}/merge", json={"primaryObjectId": "1", "objectIdToMerge": "2"}).json()
        assert merged["id"] not in {"1", "2"}
        assert call("GET", f"{HUB}/2").json()["id"] == merged["id"]
        assert call("GET", HUB, params={"archived": "true"}).json()["results"] == []


def test_salesforces_guide_url_is_no_list() -> None:
    """It answers what the object is; a list is a query, with attributes and times without a colon."""
    with serving("salesforce", 3) as call:
        assert call("GET", f"{SF}/sobjects/Contact").json().keys() == {"objectDescribe", "recentItems"}
        found = call("GET", f"{SF}/query", params={"q": "SELECT Id,SystemModstamp FROM Contact"}).json()
        assert found["records"][0]["attributes"]["type"] == "Contact"
        assert found["records"][0]["SystemModstamp"].endswith(".000+0000")
        wrong = call("GET", f"{SF}/query", params={"q": "SELECT Nope__c FROM Contact"})
        assert (wrong.status_code, wrong.json()[0]["errorCode"]) == (400, "INVALID_FIELD")
        assert "api-usage=" in wrong.headers["Sforce-Limit-Info"]


def test_salesforce_tells_no_end_of_a_token() -> None:
    """Its instance, and no expires_in; errors are lists, and rows say statusCode."""
    form = {"grant_type": "client_credentials", "client_id": "sim-client", "client_secret": "sim-secret"}
    with serving("salesforce", 1) as call:
        told = call("POST", "/services/oauth2/token", data=form).json()
        assert "instance_url" in told
        assert "expires_in" not in told
        rows = {"allOrNone": False, "records": [{"attributes": {"type": "Contact"}, "FirstName": "Uji"}]}
        (row,) = call("POST", f"{SF}/composite/sobjects", json=rows).json()
        assert (row["success"], row["errors"][0]["statusCode"]) == (False, "REQUIRED_FIELD_MISSING")


def test_zoho_refuses_bearer_and_wants_fields() -> None:
    """Its own scheme only; fields are required; nothing is 204 without a body."""
    with serving("zoho", 3) as call:
        refused = call("GET", f"{ZOHO}/Contacts", scheme="Bearer", params={"fields": "id"})
        assert (refused.status_code, refused.json()["code"]) == (401, "INVALID_TOKEN")
        bare = call("GET", f"{ZOHO}/Contacts")
        assert (bare.status_code, bare.json()["code"]) == (400, "REQUIRED_PARAM_MISSING")
        unknown = call("GET", f"{ZOHO}/Contacts/999")
        assert (unknown.status_code, unknown.content) == (204, b"")
        deep = call("GET", f"{ZOHO}/Contacts", params={"fields": "id", "page": "11"})
        assert deep.json()["code"] == "DISCRETE_PAGINATION_LIMIT_EXCEEDED"


def test_zoho_answers_rows_by_place_and_passes_over_unknown_fields() -> None:
    """207 for mixed results; a field it does not know is ignored without a word."""
    with serving("zoho") as call:
        rows = {"data": [{"Last_Name": "Uji", "Nonsense": 1}, {"First_Name": "Uji"}]}
        told = call("POST", f"{ZOHO}/Contacts", json=rows)
        assert (told.status_code, [row["code"] for row in told.json()["data"]]) == (
            207,
            ["SUCCESS", "MANDATORY_NOT_FOUND"],
        )


@pytest.mark.parametrize("wrong,error", [("client_id", "invalid_client"), ("refresh_token", "invalid_code")])
def test_zohos_token_errors_come_as_success(wrong: str, error: str) -> None:
    """Status 200, and an error in the body."""
    form = {"client_id": "sim-client", "client_secret": "sim-secret", "refresh_token": "sim-refresh"}
    with serving("zoho") as call:
        told = call("POST", "/oauth/v2/token", data={**form, "grant_type": "refresh_token", wrong: "x"})
    assert (told.status_code, told.json()) == (200, {"error": error})


JOBS = f"{SF}/jobs/ingest"


def test_a_job_of_salesforce_takes_its_time_and_its_rules() -> None:
    """States on a clock; rows once; the line ends it was opened for; results of each kind apart."""
    asked = {"object": "Contact", "operation": "insert", "lineEnding": "CRLF"}
    csv = {"Content-Type": "text/csv"}
    with serving("salesforce", job_seconds=0.3) as call:
        job = call("POST", JOBS, json=asked).json()
        assert (job["state"], job["contentUrl"]) == ("Open", f"{JOBS[1:]}/{job['id']}/batches")
        place = f"{JOBS}/{job['id']}"
        early = call("PATCH", place, json={"state": "UploadComplete"})
        assert (early.status_code, early.json()[0]["errorCode"]) == (400, "INVALIDJOBSTATE")
        rows = b"LastName,Capacity__c\r\nUji,5\r\nDua,many\r\n"
        assert call("PUT", f"{place}/batches", data=rows, headers=csv).status_code == 201
        assert call("PATCH", place, json={"state": "UploadComplete"}).json()["state"] == "UploadComplete"
        assert call("GET", place).json()["state"] == "InProgress"
        while call("GET", place).json()["state"] == "InProgress":
            pass
        told = call("GET", place).json()
        assert (told["state"], told["numberRecordsProcessed"], told["numberRecordsFailed"]) == (
            "JobComplete",
            2,
            1,
        )
        assert call("GET", f"{place}/successfulResults/").text.splitlines()[1].endswith('"true","Uji","5"')
        assert "JSON_PARSER_ERROR:" in call("GET", f"{place}/failedResults").text
        assert call("GET", f"{place}/unprocessedrecords/").text.splitlines() == ['"LastName","Capacity__c"']
        assert call("DELETE", place).status_code == 204
        assert call("GET", place).status_code == 404
        assert call("POST", JOBS, json={**asked, "object": "Account"}).json()[0]["errorCode"] == "INVALIDJOB"
        assert call("POST", JOBS, json={**asked, "operation": "upsert"}).status_code == 400
        assert call("PUT", f"{place}/batches", data=rows, headers=csv).status_code == 404


def test_a_job_fails_as_a_whole_for_what_is_wrong_in_all_rows() -> None:
    """Unknown fields, and line ends that are not what was said: no row is written."""
    with serving("salesforce", job_seconds=0) as call:
        for rows, word in ((b"LastName\nUji\n", "LineEnding"), (b"Nope__c\r\nx\r\n", "Nope__c")):
            asked = {"object": "Contact", "operation": "insert", "lineEnding": "CRLF"}
            place = f"{JOBS}/{call('POST', JOBS, json=asked).json()['id']}"
            call("PUT", f"{place}/batches", data=rows, headers={"Content-Type": "text/csv"})
            call("PATCH", place, json={"state": "UploadComplete"})
            told = call("GET", place).json()
            assert told["state"] == "Failed"
            assert word in told["errorMessage"]
        assert call("GET", f"{SF}/query", params={"q": "SELECT Id FROM Contact"}).json()["totalSize"] == 0
