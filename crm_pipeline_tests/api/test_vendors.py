"""Vendors' own events over sockets: what HubSpot, Salesforce and Zoho send lands, and is read back."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from crm_pipeline.api import soap
from crm_pipeline.api.problems import Problem
from crm_pipeline.settings import SettingsError
from crm_pipeline_tests.api.conftest import Serve
from crm_pipeline_tests.api.served import KEY, SECRET, WEBHOOK, Served, curl, curl_lines, eventually, serving
from crm_pipeline_tests.databases import SqliteDatabases
from crm_pipeline_tests.fakes import FakeCrm
from crm_pipeline_tests.project.pages import DOCS

ONE, TWO = "6281100000001@c.us", "6281100000002@c.us"
XML = {"Content-Type": "text/xml; charset=UTF-8"}
ACK = "<Ack>true</Ack>"


@pytest.fixture
def crm() -> FakeCrm:
    """The CRM that events are read back from."""
    return FakeCrm()


@pytest.fixture
def vendor(serve: Serve, crm: FakeCrm) -> Callable[..., Served]:
    """Serve the API for a vendor's format: ``vendor(webhook, **settings)``."""

    def call(webhook: str, **settings: Any) -> Served:
        api = serve(f"records: {{id: id}}\nwebhook: {webhook}", **settings)
        api.service.__dict__["connector"] = crm  # in place of the one that would be connected
        return api

    return call


@pytest.fixture(scope="module")
def salesforces(
    sqlite_databases: SqliteDatabases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One API in Salesforce's format, for all tests whose messages are refused."""
    file = tmp_path_factory.mktemp("salesforce") / "connection.yaml"
    file.write_text("webhook: {format: salesforce}")
    with sqlite_databases.fresh() as url, serving(database_url=url, external_crm_config=file) as served:
        yield served


def names(api: Served) -> dict[str, str]:
    """Contacts by id."""
    return {row[0]: row[1] for row in api.sql("SELECT id, nama FROM contacts WHERE archived_at IS NULL")}


def outcomes(api: Served) -> list[tuple[Any, ...]]:
    """What became of events, oldest first."""
    return api.sql("SELECT external_id, action, outcome FROM webhook_events ORDER BY id")


# HubSpot.

CLIENT_SECRET = "client-secret-of-the-app"


def event(kind: str, **more: Any) -> dict[str, Any]:
    """One of HubSpot's events."""
    return {
        "eventId": 100,
        "subscriptionId": 31,
        "portalId": 7001,
        "appId": 88,
        "occurredAt": 1767607200000,
        "subscriptionType": f"contact.{kind}",
        "attemptNumber": 0,
        "changeSource": "CRM_UI",
        **more,
    }


def hubspot(api: Served, *events: dict[str, Any], secret: str = CLIENT_SECRET) -> requests.Response:
    """Send events as HubSpot does: signed, without an API key."""
    body, stamp = json.dumps(events), str(int(time.time() * 1000))
    digest = hmac.digest(secret.encode(), f"POST{api.url}{WEBHOOK}{body}{stamp}".encode(), "sha256")
    headers = {
        "X-HubSpot-Request-Timestamp": stamp,
        "X-HubSpot-Signature-v3": base64.b64encode(digest).decode(),
    }
    return api.post_bytes(body.encode(), headers=headers, key=None)


def test_hubspots_events_are_landed_and_their_records_read_back(vendor: Any, crm: FakeCrm) -> None:
    """Creation, change, deletion and merge: each names records, and the records say what is so."""
    api = vendor("{format: hubspot}", external_crm_webhook_secret=CLIENT_SECRET)
    crm.put("501", phone=ONE, name="Sinta")
    crm.put("502", phone=TWO, name="Dewi")
    told = hubspot(
        api,
        event("creation", objectId=501, changeFlag="NEW"),
        event("creation", objectId=502, changeFlag="NEW"),
        event("propertyChange", objectId=501, propertyName="firstname", propertyValue="hearsay"),
    )
    assert told.status_code == 200
    assert [each["action"] for each in told.json()["results"]] == ["created"] * 3
    api.service.apply_events()
    assert names(api) == {ONE: "Sinta", TWO: "Dewi"}
    assert outcomes(api) == [
        ("501", "created", "created"),
        ("502", "created", "created"),
        ("501", "created", "unchanged"),
    ]

    crm.put("501", name="Sinta B")
    told = hubspot(api, event("propertyChange", objectId=501, eventId=101, propertyName="firstname"))
    assert [(each["action"], each["userId"]) for each in told.json()["results"]] == [("updated", ONE)]
    api.service.apply_events()
    assert names(api)[ONE] == "Sinta B"

    crm.delete("502")
    hubspot(api, event("deletion", objectId=502, eventId=102, changeFlag="DELETED"))
    api.service.apply_events()
    assert names(api) == {ONE: "Sinta B"}
    assert outcomes(api)[-1] == ("502", "updated", "updated")


def test_a_merge_in_hubspot_moves_the_link(vendor: Any, crm: FakeCrm) -> None:
    """Both records are asked for: the loser is gone, the winner goes on."""
    api = vendor("{format: hubspot}", external_crm_webhook_secret=CLIENT_SECRET)
    crm.put("501", phone=ONE, name="Sinta")
    crm.put("502", phone=TWO, name="Dewi")
    hubspot(api, event("creation", objectId=501), event("creation", objectId=502))
    api.service.apply_events()
    crm.put("502", name="Dewi, merged")
    crm.merge("501", "502")
    merge = {"primaryObjectId": 502, "mergedObjectIds": [501, 502], "newObjectId": 502}
    told = hubspot(api, event("merge", objectId=502, eventId=103, numberOfPropertiesMoved=2, **merge))
    assert len(told.json()["results"]) == 2
    api.service.apply_events()
    assert names(api) == {TWO: "Dewi, merged"}
    assert api.service.events_pending() == 0


def test_hubspots_repeats_are_one_event_and_its_ids_need_not_be_unique(vendor: Any) -> None:
    """The number of the attempt makes no other event; another change under the same id does."""
    api = vendor("{format: hubspot}", external_crm_webhook_secret=CLIENT_SECRET)
    first, again, other = (
        hubspot(api, each).json()["results"][0]
        for each in (
            event("creation", objectId=501),
            event("creation", objectId=501, attemptNumber=1),
            event("creation", objectId=502),
        )
    )
    assert first == again
    assert first["eventId"].startswith("100-")
    assert other["eventId"] != first["eventId"]
    assert api.rows()[0] == 2
    assert api.ask("GET", f"{WEBHOOK}/{first['eventId']}").json()["status"] == "landed"
    assert "attemptNumber" not in str(api.sql("SELECT payload FROM webhook_events"))


@pytest.mark.parametrize(
    "other",
    [
        {"subscriptionType": "company.creation", "objectId": 501},
        {"subscriptionType": "object.creation", "objectTypeId": "0-2", "objectId": 501},
        {"subscriptionType": "contact.associationChange", "fromObjectId": 501, "toObjectId": 9},
        {"subscriptionType": None, "objectId": 501},
        {"objectId": {"a": 1}},
    ],
)
def test_events_about_something_else_are_kept_and_skipped(vendor: Any, other: dict[str, Any]) -> None:
    """The CRM is asked for nothing; the next event has its contact."""
    api = vendor("{format: hubspot}", external_crm_webhook_secret=CLIENT_SECRET)
    generic = event("x", subscriptionType="object.creation", objectTypeId="0-1", objectId=501)
    told = hubspot(api, {**event("creation"), **other}, generic).json()
    assert [(each["action"], each["status"]) for each in told["results"]] == [
        ("skipped", "applied"),
        ("created", "landed"),
    ]
    assert outcomes(api)[0] == (None, "skipped", "skipped")


def test_hubspots_events_without_a_right_signature_are_refused(vendor: Any) -> None:
    """Nor does an API key take its place."""
    api = vendor("{format: hubspot}", external_crm_webhook_secret=CLIENT_SECRET)
    body = json.dumps([event("creation", objectId=501)]).encode()
    assert hubspot(api, event("creation", objectId=501), secret="another").status_code == 401
    assert api.post_bytes(body, key=None).status_code == 401
    assert api.post_bytes(body).status_code == 401
    assert api.rows() == (0, 0)


# Zoho.


def zoho(api: Served, *ids: str, **more: Any) -> requests.Response:
    """Send a notification as Zoho does: with its token, without an API key."""
    body = {
        "server_time": 1767607200000,
        "query_params": {},
        "module": "Contacts",
        "resource_uri": "https://www.zohoapis.eu/crm/v8/Contacts",
        "ids": list(ids),
        "affected_fields": [{each: ["Mobile"]} for each in ids],
        "affected_values": [{"record_id": each, "values": {"Mobile": "+62811000222"}} for each in ids],
        "operation": "update",
        "channel_id": "900000001",
        "token": SECRET,
        **more,
    }
    return api.post_bytes(json.dumps(body).encode(), key=None)


def test_zohos_notifications_name_records_that_are_read_back(vendor: Any, crm: FakeCrm) -> None:
    """Each id is an event; the token is kept nowhere; the same notification again is the same events."""
    api = vendor("{format: zoho}")
    crm.put("5550000000000000001", phone=ONE, name="Sinta")
    crm.put("5550000000000000002", phone=TWO, name="Dewi")
    first, again = (zoho(api, "5550000000000000001", "5550000000000000002") for _ in range(2))
    assert (first.status_code, first.json()) == (200, again.json())
    assert [each["action"] for each in first.json()["results"]] == ["created", "created"]
    api.service.apply_events()
    assert names(api) == {ONE: "Sinta", TWO: "Dewi"}
    crm.delete("5550000000000000002")
    zoho(api, "5550000000000000002", operation="delete")
    api.service.apply_events()
    assert names(api) == {ONE: "Sinta"}
    kept = str(api.sql("SELECT payload FROM webhook_events"))
    assert SECRET not in kept
    assert "+62811000222" not in kept


@pytest.mark.parametrize(
    "more, status",
    [({"token": "wrong"}, 401), ({"token": None}, 401), ({"module": "Leads"}, 200), ({"ids": "555"}, 200)],
)
def test_other_notifications_ask_for_nothing(vendor: Any, more: dict[str, Any], status: int) -> None:
    """A wrong token is refused; another module's records are skipped."""
    api = vendor("{format: zoho}")
    assert zoho(api, "555", **more).status_code == status
    assert [row[1:] for row in outcomes(api)] == ([("skipped", "skipped")] if status == 200 else [])


# Salesforce.


def notification(number: int, fields: str, kind: str = "sf:Contact") -> str:
    """One notification of an outbound message."""
    return (
        f"<Notification><Id>04l00000000000{number}</Id>"
        f'<sObject xsi:type="{kind}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xmlns:sf="urn:sobject.enterprise.soap.sforce.com">{fields}</sObject></Notification>'
    )


def message(*notifications: str, organization: str = "00D000000000001AAA") -> str:
    """An outbound message."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
        '<notifications xmlns="http://soap.sforce.com/2005/09/outbound">'
        f"<OrganizationId>{organization}</OrganizationId><ActionId>04k000000000001</ActionId>"
        "<SessionId>00D!session-of-a-user</SessionId><EnterpriseUrl>https://x.example</EnterpriseUrl>"
        f"{''.join(notifications)}</notifications></soapenv:Body></soapenv:Envelope>"
    )


def outbound(api: Served, body: str | bytes, query: str = f"?secret={SECRET}") -> requests.Response:
    """Send a message as Salesforce does: the secret is in the address, and there is no API key."""
    data = body.encode() if isinstance(body, str) else body
    return api.ask("POST", WEBHOOK + query, key=None, data=data, headers=XML)


BOTH = (
    notification(1, "<sf:Id>003000000000001</sf:Id><sf:LastName>One</sf:LastName>"),
    notification(2, "<sf:Id>003000000000002</sf:Id>"),
)


def test_salesforces_message_is_acknowledged_and_its_records_read_back(vendor: Any, crm: FakeCrm) -> None:
    """Its XML says that it is received; the same message again is the same events."""
    api = vendor("{format: salesforce, organization: 00D000000000001}")
    crm.put("003000000000001", phone=ONE, name="Sinta")
    crm.put("003000000000002", phone=TWO, name="Dewi")
    answers = [outbound(api, message(*BOTH)) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert answers[0].headers["Content-Type"].startswith("text/xml")
    acknowledged = soap.parse(answers[0].content)
    assert acknowledged.findtext(".//{http://soap.sforce.com/2005/09/outbound}Ack") == "true"
    assert api.rows()[0] == 2
    api.service.apply_events()
    assert names(api) == {ONE: "Sinta", TWO: "Dewi"}
    assert "session-of-a-user" not in str(api.sql("SELECT payload FROM webhook_events"))
    assert SECRET not in api.output.getvalue().decode()


def test_a_message_may_say_something_newer_under_an_old_id(vendor: Any, crm: FakeCrm) -> None:
    """Salesforce sends what is so at the time of sending: it is another event, and no mistake."""
    api = vendor("{format: salesforce}")
    crm.put("003000000000001", phone=ONE, name="Sinta")
    for name in ("One", "Two"):
        sent = notification(1, f"<sf:Id>003000000000001</sf:Id><sf:LastName>{name}</sf:LastName>")
        assert ACK in outbound(api, message(sent)).text
    assert api.rows()[0] == 2


def test_without_reading_back_a_message_is_applied_as_sent(vendor: Any) -> None:
    """Text, null and nested values come through; other objects are skipped."""
    api = vendor(
        "{format: salesforce, read_back: false}\n"
        "fields:\n  id: {names: MobilePhone}\n  nama: {names: LastName}\n  notes: {names: Description}"
    )
    fields = (
        "<sf:Id>003000000000001</sf:Id><sf:LastName>Sinta &amp; Dewi</sf:LastName>"
        f"<sf:MobilePhone>+{ONE[:-5]}</sf:MobilePhone><sf:Description xsi:nil='true'/>"
        "<sf:MailingAddress><sf:city>Bandung</sf:city></sf:MailingAddress>"
    )
    lead = notification(2, "<sf:Id>00Q000000000001</sf:Id>", kind="sf:Lead")
    assert ACK in outbound(api, message(notification(1, fields), lead)).text
    api.service.apply_events()
    assert names(api) == {ONE: "Sinta & Dewi"}
    assert [row[1:] for row in outcomes(api)] == [("created", "created"), ("skipped", "skipped")]


@pytest.mark.parametrize(
    "query", ["", "?secret=", "?secret=wrong", f"?secret={SECRET}&secret=x", f"?key={KEY}"]
)
def test_a_message_without_the_secret_is_refused(salesforces: Served, query: str) -> None:
    """The same answer as to any other who proves nothing; the XML is not even looked at."""
    answer = outbound(salesforces, "<not xml", query)
    assert (answer.status_code, answer.json()["success"]) == (401, False)
    assert salesforces.rows() == (0, 0)


def test_a_message_of_another_organisation_is_refused(vendor: Any) -> None:
    """401, where the organisation is set."""
    api = vendor("{format: salesforce, organization: 00D000000000001AAA}")
    assert outbound(api, message(BOTH[0], organization="00D000000000002AAA")).status_code == 401
    assert outbound(api, message(BOTH[0], organization="00D000000000001")).status_code == 200


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
FILE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<",
        "{}",
        "<a>",
        "<a/>",
        message(),
        message(*(BOTH[0],) * 101),
        message("<Notification><Id>1</Id></Notification>"),
        BOMB + "<x>&b;</x>",
        FILE + "<x>&a;</x>",
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd"><x/>',
        "<x>&unknown;</x>",
        "<x>" * 40 + "</x>" * 40,
        "<x>" * 100_000,
        message(notification(1, f"<sf:Id>003</sf:Id><sf:A>{'x' * 70_000}</sf:A>")),
        message(notification(1, "<sf:A/>" * 100_001)),
        message(BOTH[0]).encode("utf-16"),
        message(BOTH[0]).replace("One", "\xe9").encode("latin-1"),
        message(BOTH[0]).replace("One", "\x00"),
        b'<?xml version="1.0" encoding="utf-7"?><x>+ADw-</x>',
    ],
)
def test_what_is_no_outbound_message(salesforces: Served, body: str | bytes) -> None:
    """400, nothing stored, nothing expanded or fetched, nothing told of it."""
    answer = outbound(salesforces, body)
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert answer.json()["success"] is False
    assert salesforces.rows() == (0, 0)
    assert salesforces.ask("GET", "/healthz", key=None).ok


def test_each_format_has_its_media_type(salesforces: Served) -> None:
    """JSON is no message of Salesforce's, and says so."""
    api = salesforces
    answer = api.ask("POST", f"{WEBHOOK}?secret={SECRET}", json={"a": 1})
    assert (answer.status_code, answer.headers["Accept"]) == (415, "text/xml")
    described = api.ask("GET", "/openapi.json").json()["paths"][WEBHOOK]["post"]
    assert list(described["requestBody"]["content"]) == ["text/xml"]
    assert described["security"] == [{}, {"ApiKey": []}]


@pytest.mark.parametrize(
    "webhook",
    [
        "{format: hubspot, read_back: false}",
        "{format: zoho, read_back: false}",
        "{format: hubspot, signature: null}",
        "{format: zoho, records: data}",
        "{format: salesforce, event_id: Id}",
        "{format: other}",
    ],
)
def test_formats_that_cannot_work_do_not_start(vendor: Any, webhook: str) -> None:
    """Told when it starts, with the key that is wrong."""
    with pytest.raises(SettingsError, match="webhook"):
        vendor(webhook, external_crm_webhook_secret=CLIENT_SECRET)


@pytest.mark.parametrize(
    "webhook, part",
    [
        ("{format: salesforce, organization: 00D000000000001AAA}", "?secret="),
        ("{format: zoho}", "/webhook -H"),
    ],
)
def test_the_lines_of_the_page_work(vendor: Any, webhook: str, part: str) -> None:
    """Each curl line, as printed but for address and secret."""
    (line,) = curl_lines(DOCS / "webhooks.md", part)
    api = vendor(webhook)
    assert curl(line, api).status_code == 200
    assert [row[1:] for row in outcomes(api)] == [("created", None)]


def test_hints_that_say_the_same_are_not_folded(vendor: Any, crm: FakeCrm) -> None:
    """A record may change twice, and both times all that is told is its id."""
    api = vendor("{read_back: true}")
    crm.put("r1", phone=ONE, name="Sinta")
    for name in ("Sinta", "Dewi"):
        crm.put("r1", name=name)
        assert api.post({"id": "r1", "phone": ONE}).status_code == 200
        api.service.apply_events()
        assert names(api) == {ONE: name}
    assert api.rows()[0] == 2


def test_hints_are_applied_before_the_answer(vendor: Any, crm: FakeCrm) -> None:
    """WEBHOOK_APPLY=now, with a record that is read back."""
    api = vendor("{format: zoho}", webhook_apply="now")
    crm.put("555", phone=ONE, name="Sinta")
    assert zoho(api, "555").json()["results"][0]["status"] == "applied"
    eventually(lambda: names(api) == {ONE: "Sinta"})


def test_the_parser_keeps_what_counts() -> None:
    """Names with their namespaces, text in pieces, comments and instructions left out."""
    tree = soap.parse(b'<a xmlns="urn:x" b="1"><!-- c --><c>one<![CDATA[ & two]]></c><?p i?></a>')
    assert (tree.tag, tree.attrib, tree[0].text) == ("{urn:x}a", {"b": "1"}, "one & two")
    with pytest.raises(Problem):
        soap.parse(b"<a></b>")
