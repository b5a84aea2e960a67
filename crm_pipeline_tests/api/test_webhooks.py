"""Webhooks over sockets: what is answered, what lands, and what does not."""

from __future__ import annotations

import base64
import hmac
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from crm_pipeline import ExternalCrmService
from crm_pipeline.settings import SettingsError
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline_tests.api.conftest import Serve
from crm_pipeline_tests.api.served import (
    KEY,
    OLD_KEY,
    OLD_SECRET,
    PHONE,
    RECORD,
    SECRET,
    WEBHOOK,
    Served,
    eventually,
)

GUIDE = {
    "phone": "628123456789@c.us",
    "name": "John Doe",
    "company": "Acme Corp",
    "event_name": "Tech Conference 2025",
    "ticket_price": 150000,
    "capacity": 500,
    "status": "deal",
    "meeting_date": "2025-02-15T10:00:00Z",
    "event_date": "2025-06-20T09:00:00Z",
}
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_guides_webhook(api: Served) -> None:
    """A new contact is created, the same news changes nothing, other news updates it."""
    answer = api.post(GUIDE)
    assert answer.status_code == 200
    told = answer.json()
    assert told == {
        "success": True,
        "userId": "628123456789@c.us",
        "action": "created",
        "eventId": told["eventId"],
        "status": "landed",
    }
    api.service.apply_events()
    assert api.post({**GUIDE, "capacity": 501}).json()["action"] == "updated"
    api.service.apply_events()
    assert api.post({**GUIDE, "name": "John Doe", "capacity": "501"}).json()["action"] == "unchanged"
    assert api.sql("SELECT nama, capacity, deal_status FROM contacts") == [("John Doe", 501, "deal")]


def test_the_answer_comes_with_headers_for_safety(api: Served) -> None:
    """Nothing is cached, framed, sniffed or shared with other origins; the request has a name."""
    headers = api.post(RECORD, headers={"Origin": "https://evil.example"}).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert len(headers["X-Request-Id"]) == 32
    assert not [
        name for name in headers if name.lower().startswith("access-control") or name.lower() == "server"
    ]


def test_the_request_has_one_name_everywhere(api: Served) -> None:
    """In the answer, in the log and with what landed."""
    name = api.post(RECORD).headers["X-Request-Id"]
    assert api.sql("SELECT request_id FROM webhook_events") == [(name,)]
    assert api.log[-1]["request_id"] == name


def test_the_secret_is_kept_nowhere(api: Served) -> None:
    """Neither with what landed, nor in the log, nor in any answer."""
    batch = [{"secret": SECRET, "phone": "628111111111"}]
    answers = [api.post(RECORD), api.post(batch), api.post({"phone": "x"})]
    stored = api.sql("SELECT payload FROM webhook_events")
    assert len(stored) == 3
    for text in (
        [answer.text for answer in answers]
        + [payload for (payload,) in stored]
        + [api.output.getvalue().decode()]
    ):
        assert SECRET not in text
        assert '"secret"' not in text


def test_a_list_of_records(api: Served) -> None:
    """Each is answered in its place; one that is rejected does not stop the others."""
    bodies = [{"phone": "628111111111"}, {"phone": "nobody"}, {"phone": "628111111112", "status": "lost"}]
    answer = api.post([{"secret": SECRET, **each} for each in bodies])
    assert answer.status_code == 200
    told = answer.json()
    assert told["success"] is False
    assert [
        (each["success"], each["userId"], each["action"], each["status"]) for each in told["results"]
    ] == [
        (True, "628111111111@c.us", "created", "landed"),
        (False, None, "rejected", "rejected"),
        (True, "628111111112@c.us", "created", "landed"),
    ]
    assert told["results"][1]["reasons"].keys() == {"id"}
    assert api.rows()[0] == 3
    assert api.post([{"secret": SECRET, **RECORD}]).json()["success"] is True


@pytest.mark.parametrize(
    "fields, wrong",
    [
        ({"phone": "1203630@g.us"}, {"id"}),
        ({}, {"id"}),
        ({"phone": "628111111111", "ticket_price": "1.5", "capacity": -1}, {"ticketPrice", "capacity"}),
        ({"phone": "628111111111", "status": "won"}, {"dealStatus"}),
        ({"phone": "628111111111", "ticket_price": 2**63}, {"ticketPrice"}),
        ({"phone": "628111111111", "ticket_price": int("9" * 64)}, {"ticketPrice"}),
        ({"phone": "628111111111", "ticket_price": True}, {"ticketPrice"}),
        ({"phone": "628111111111", "ticket_price": "5_0"}, {"ticketPrice"}),
        ({"phone": "628111111111", "ticket_price": 9_007_199_254_740_993.0}, {"ticketPrice"}),
        ({"phone": "628111111111", "meeting_date": "tomorrow"}, {"meetingDate"}),
        ({"phone": ["628111111111"]}, {"id"}),
        ({"phone": {"a": 1}}, {"id"}),
    ],
)
def test_what_cannot_become_a_contact_is_kept_with_its_reasons(
    shared: Served, fields: dict[str, Any], wrong: set[str]
) -> None:
    """422 names the event and the reason for each field; it can be looked up and replayed."""
    events, contacts = shared.rows()
    answer = shared.post(fields)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = answer.json()
    assert (told["success"], told["status"]) == (False, 422)
    assert set(told["reasons"]) == wrong
    assert "628111111111" not in answer.text
    event = shared.ask("GET", f"{WEBHOOK}/{told['eventId']}").json()
    assert (event["status"], event["reasons"]) == ("rejected", told["reasons"])
    assert shared.rows() == (events + 1, contacts)


@pytest.mark.parametrize(
    "text, kept",
    [('"5"', 5), ("5", 5), ("5.0", 5), ('" 5 "', 5), ("0", 0), ("null", None), ('"150000"', 150000)],
)
def test_spellings_of_a_number(shared: Served, text: str, kept: int | None) -> None:
    """What is plainly a whole number is one."""
    answer = shared.post_bytes(f'{{"secret":"{SECRET}","phone":"{PHONE}","ticket_price":{text}}}'.encode())
    assert answer.status_code == 200
    shared.service.apply_events()
    assert shared.sql("SELECT ticket_price FROM contacts WHERE id = :id", id=PHONE) == [(kept,)]


@pytest.mark.parametrize("header", ["webhook-id", "Idempotency-Key", "WEBHOOK-ID"])
def test_the_same_event_twice_is_one_event(api: Served, header: str) -> None:
    """The same id and body: the same answer, one row."""
    name = "evt/1:" + "x" * 249  # 255 characters
    first, second = (api.post(RECORD, headers={header: name}) for _ in range(2))
    assert (first.status_code, first.content) == (200, second.content)
    assert first.json()["eventId"] == name
    assert api.rows()[0] == 1
    assert api.ask("GET", f"{WEBHOOK}/{name}").json()["eventId"] == name


def test_an_id_with_another_body_is_refused(api: Served) -> None:
    """422, and the first one stands."""
    headers = {"Idempotency-Key": "evt-1"}
    api.post(RECORD, headers=headers)
    answer = api.post({**RECORD, "name": "Sari"}, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["eventId"] == "evt-1"
    assert "reasons" not in answer.json()
    assert [json.loads(payload)["name"] for (payload,) in api.sql("SELECT payload FROM webhook_events")] == [
        "Budi"
    ]


def test_without_an_id_only_an_immediate_repeat_is_one_event(api: Served) -> None:
    """The same news right again is a repeat; after other news it is news."""
    ids = [api.post({**RECORD, "name": name}).json()["eventId"] for name in ("Budi", "Budi", "Sari", "Budi")]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert api.rows()[0] == 3


def test_a_list_under_one_id(api: Served) -> None:
    """Each of its records has a name of its own, and the same list again is the same events."""
    batch = [{"secret": SECRET, "phone": f"62811111111{n}"} for n in range(3)]
    first, second = (api.post(batch, headers={"webhook-id": "evt"}).json() for _ in range(2))
    assert [each["eventId"] for each in first["results"]] == ["evt/0", "evt/1", "evt/2"]
    assert first == second
    assert api.rows()[0] == 3


def test_what_became_of_an_event(api: Served) -> None:
    """Landed, then applied, with the run that did it."""
    event_id = api.post(RECORD).json()["eventId"]
    landed = api.ask("GET", f"{WEBHOOK}/{event_id}").json()
    assert (landed["status"], landed["action"], landed["appliedAt"]) == ("landed", "created", None)
    api.service.apply_events()
    applied = api.ask("GET", f"{WEBHOOK}/{event_id}").json()
    assert (applied["status"], applied["action"], applied["userId"]) == ("applied", "created", PHONE)
    assert applied["runId"] == api.service.run_id


def test_applied_before_the_answer(serve: Serve) -> None:
    """WEBHOOK_APPLY=now: the contact is there when the sender hears of it."""
    api = serve(webhook_apply="now")
    for name, action in (("Budi", "created"), ("Sari", "updated")):
        told = api.post({**RECORD, "name": name}).json()
        assert (told["status"], told["action"]) == ("applied", action)
        assert api.sql("SELECT nama FROM contacts") == [(name,)]
    batch = [{"secret": SECRET, "phone": f"62811111111{n}"} for n in range(5)]
    assert {each["status"] for each in api.post(batch).json()["results"]} == {"applied"}
    assert api.rows() == (7, 6)


def test_an_event_that_comes_again_is_answered_by_what_became_of_it(serve: Serve) -> None:
    """Landed as news, rejected when it was applied, and applied after all: as it can be looked up."""
    api = serve(webhook_apply="now")
    first, second = {**RECORD, "id": "1"}, {**RECORD, "id": "2", "name": "Sari"}
    with api.service._leased("a long pull"):  # noqa: SLF001 - another worker
        for name, record in (("evt-1", first), ("evt-2", second)):
            assert api.post(record, headers={"webhook-id": name}).json()["status"] == "landed"
    api.service.apply_events()
    told = api.post(second, headers={"webhook-id": "evt-2"})
    kept = api.ask("GET", f"{WEBHOOK}/evt-2").json()
    assert (told.status_code, kept["status"], kept["action"]) == (422, "rejected", "rejected")
    assert list(kept["reasons"]) == ["id"]
    assert told.json()["reasons"] == kept["reasons"]
    api.sql("DELETE FROM links")
    api.service.replay()
    told = api.post(second, headers={"webhook-id": "evt-2"}).json()
    kept = api.ask("GET", f"{WEBHOOK}/evt-2").json()
    assert (kept["status"], kept["action"], kept["reasons"]) == ("applied", "updated", {})
    names = ("eventId", "status", "action", "userId")
    assert told == {"success": True, **{name: kept[name] for name in names}}


def test_what_cannot_be_applied_now_is_left_to_the_sensor(serve: Serve) -> None:
    """Another run works the connection: the webhook has landed, is answered so, and waits."""
    api = serve(webhook_apply="now")
    with api.service._leased("a long pull"):  # noqa: SLF001 - another worker
        told = api.post(RECORD).json()
        assert (told["status"], told["success"]) == ("landed", True)
    assert any(line["event"] == "webhooks are left to the sensor" for line in api.log)
    assert api.service.events_pending() == 1
    assert api.post({"phone": "628111111111"}).json()["status"] == "applied"
    assert api.service.events_pending() == 0


def test_either_key_and_either_secret_while_they_change(serve: Serve) -> None:
    """Two keys and two secrets are good at once; the old ones end with the setting."""
    api = serve()
    for key in (KEY, OLD_KEY):
        for secret in (SECRET, OLD_SECRET):
            assert api.post(RECORD, key=key, secret=secret).status_code == 200
    assert len({line["key"] for line in api.log if line.get("status") == 200}) == 2


def test_after_the_change_the_old_ones_are_refused(serve: Serve) -> None:
    """A key and a secret that are no longer set are wrong."""
    api = serve(crm_api_key=KEY, external_crm_webhook_secret=SECRET)
    assert api.post(RECORD).status_code == 200
    assert api.post(RECORD, key=OLD_KEY).status_code == 401
    assert api.post(RECORD, secret=OLD_SECRET).status_code == 401


def test_switched_off(serve: Serve) -> None:
    """Nothing is accepted, fetched or pushed; status and probes answer; a wrong key is a wrong key."""
    api = serve(external_crm_enabled=False)
    for method, path in (
        ("POST", WEBHOOK),
        ("GET", f"{WEBHOOK}/x"),
        ("GET", "/api/external/fetch"),
        ("POST", "/api/external/fetch"),
        ("POST", "/api/external/push/628111111111"),
    ):
        answer = api.ask(method, path)
        assert (answer.status_code, answer.json()["success"]) == (503, False), path
        assert api.ask(method, path, key="wrong").status_code == 401
    assert api.ask("GET", "/api/external/status").json()["enabled"] is False
    assert api.ask("GET", "/readyz").status_code == 200
    assert api.ask("GET", "/healthz", key=None).status_code == 200
    assert api.rows() == (0, 0)


def test_authentication_that_is_switched_off(serve: Serve) -> None:
    """Only an explicit false opens the door; a secret that is set is still asked for."""
    open_to_all = serve(api_auth_enabled=False, crm_api_key=None, external_crm_webhook_secret=None)
    assert open_to_all.post(RECORD, key=None, secret=None).status_code == 200
    assert open_to_all.post({**RECORD, "name": "x"}, key="any", secret="any").status_code == 200
    assert "any" not in str(open_to_all.sql("SELECT payload FROM webhook_events"))
    guarded = serve(api_auth_enabled=False, crm_api_key=None)
    assert guarded.post(RECORD, key=None, secret="wrong").status_code == 401
    assert guarded.post(RECORD, key=None).status_code == 200


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"crm_api_key": None}, "CRM_API_KEY"),
        ({"external_crm_webhook_secret": None}, "EXTERNAL_CRM_WEBHOOK_SECRET"),
        ({"rate_limit_storage": "nonsense://x"}, "RATE_LIMIT_STORAGE"),
    ],
)
def test_unsafe_settings_do_not_start(serve: Serve, settings: dict[str, Any], named: str) -> None:
    """Without a key or a secret it does not start, rather than let everybody in."""
    with pytest.raises(SettingsError, match=named):
        serve(**settings)


def test_without_a_secret_polling_works_and_webhooks_do_not(serve: Serve) -> None:
    """Who only polls needs no secret; webhooks are then refused, not let in."""
    api = serve(external_crm_sync_mode="polling", external_crm_webhook_secret=None)
    assert api.ask("GET", "/api/external/status").status_code == 200
    for secret in (None, "", "x"):
        answer = api.post(RECORD, secret=secret)
        assert answer.status_code == 503
        assert "EXTERNAL_CRM_WEBHOOK_SECRET" in answer.json()["detail"]
    assert api.rows() == (0, 0)


def sign(
    body: bytes, *, event_id: str = "evt_1", at: float | None = None, secret: str = STANDARD
) -> dict[str, str]:
    """Headers as the standard's own library makes them."""
    moment = datetime.fromtimestamp(time.time() if at is None else at, UTC)
    signature = Webhook(secret).sign(event_id, moment, body.decode())
    stamp = str(int(moment.timestamp()))
    return {"webhook-id": event_id, "webhook-timestamp": stamp, "webhook-signature": signature}


SIGNED = "webhook: {signature: {scheme: standard}, records: data}"


def test_standard_webhooks(serve: Serve) -> None:
    """A signature takes the place of key and secret; its id names the event, replays are one event."""
    api = serve(SIGNED, external_crm_webhook_secret=STANDARD)
    body = json.dumps({"type": "contact.updated", "data": RECORD}).encode()
    headers = sign(body)
    answers = [api.post_bytes(body, headers=headers, key=None) for _ in range(10)]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json()["eventId"] == "evt_1"
    assert api.rows()[0] == 1
    assert api.post_bytes(body, headers=sign(body, event_id="evt_2")).status_code == 200
    wrong = [
        {},
        sign(body, at=time.time() - 302),
        sign(body, at=time.time() + 302),
        sign(body + b" "),
        sign(body, secret="whsec_" + base64.b64encode(b"x" * 24).decode()),
        {**headers, "webhook-id": "evt_3"},
        *({**headers, "webhook-signature": text} for text in ("v1", "v1,a,b", "", "v1,\xe9")),
    ]
    answers = [api.post_bytes(body, headers=each, key=None) for each in wrong]
    answers.append(api.post_bytes(body, headers=sign(body), key="wrong"))
    assert [answer.status_code for answer in answers] == [401] * len(answers)
    assert len({answer.content for answer in answers}) == 1
    reordered = json.dumps({"data": RECORD, "type": "contact.updated"}).encode()
    assert api.post_bytes(reordered, headers=headers, key=None).status_code == 401
    assert api.rows()[0] == 2


DATED = """
webhook:
  signature: {scheme: hmac, value: "t={timestamp},v1={digest}", signed: "{timestamp}.{body}"}
"""


def stamped(record: Any, at: int) -> tuple[bytes, dict[str, str]]:
    """A webhook, and the headers that sign it with a time and no id."""
    body = json.dumps(record).encode()
    digest = hmac.digest(SECRET.encode(), b"%d." % at + body, "sha256").hex()
    return body, {"X-Signature": f"t={at},v1={digest}"}


def test_a_replay_of_a_signed_time_is_the_same_event(serve: Serve) -> None:
    """After other news, too: the old news is not applied again. Signed anew, it is news."""
    api = serve(DATED)
    now = int(time.time())
    old, new = stamped(RECORD, now), stamped({**RECORD, "name": "Sari"}, now)
    answers = []
    for body, headers in (old, new, old):
        answers.append(api.post_bytes(body, headers=headers, key=None).json())
        api.service.apply_events()
    assert answers[2]["eventId"] == answers[0]["eventId"]
    assert [answer["action"] for answer in answers] == ["created", "updated", "created"]
    assert api.sql("SELECT nama FROM contacts") == [("Sari",)]
    found = api.ask("GET", f"{WEBHOOK}/{answers[0]['eventId']}").json()
    assert (found["status"], found["action"]) == ("applied", "created")
    body, headers = stamped(RECORD, now + 1)
    assert api.post_bytes(body, headers=headers, key=None).json()["action"] == "updated"
    assert api.rows()[0] == 3


def test_a_name_in_the_headers_goes_before_that_of_a_signed_time(serve: Serve) -> None:
    """A sender that names its events may sign a repeat anew."""
    api = serve(DATED)
    now = int(time.time())
    for at in (now, now + 1):
        body, headers = stamped(RECORD, at)
        named = {**headers, "Idempotency-Key": "evt-1"}
        assert api.post_bytes(body, headers=named, key=None).json()["eventId"] == "evt-1"
    assert api.rows()[0] == 1


def test_replays_of_a_list_with_a_signed_time(serve: Serve) -> None:
    """Each record has a name of its own, and the same list again is the same events."""
    api = serve(DATED)
    now = int(time.time())
    records = [{"phone": f"62811111111{n}"} for n in range(3)]
    body, headers = stamped(records, now)
    first, second = (api.post_bytes(body, headers=headers, key=None).json() for _ in range(2))
    assert first == second
    assert len({each["eventId"] for each in first["results"]}) == 3
    assert api.rows()[0] == 3


def test_a_signature_opens_webhooks_only(serve: Serve) -> None:
    """Everything else still asks for the key."""
    api = serve(SIGNED, external_crm_webhook_secret=STANDARD)
    for method, path in (
        ("GET", "/api/external/status"),
        ("POST", "/api/external/fetch"),
        ("GET", f"{WEBHOOK}/evt_1"),
    ):
        assert api.ask(method, path, headers=sign(b""), key=None).status_code == 401


def test_two_signing_secrets_while_they_change(serve: Serve) -> None:
    """Messages signed with either are good."""
    other = "whsec_" + base64.b64encode(b"y" * 24).decode()
    api = serve(SIGNED, external_crm_webhook_secret=f"{other},{STANDARD}")
    body = json.dumps({"data": RECORD}).encode()
    for number, secret in enumerate((STANDARD, other)):
        assert (
            api.post_bytes(
                body, headers=sign(body, secret=secret, event_id=str(number)), key=None
            ).status_code
            == 200
        )


@pytest.mark.parametrize("proxied", [False, True])
def test_hubspots_list_of_events(serve: Serve, *, proxied: bool) -> None:
    """Signed over the address as HubSpot knows it; each event goes by its own id and is read back later."""
    public = "https://hooks.example.org/hubspot" if proxied else ""
    api = serve(
        "records: {id: objectId}\n"
        "webhook: {read_back: true, event_id: eventId, signature: {scheme: hubspot"
        + (f", public_url: '{public}'" if proxied else "")
        + "}}",
        external_crm_webhook_secret="client-secret",
    )
    body = json.dumps(
        [{"eventId": 100 + n, "objectId": 501, "subscriptionType": "contact.creation"} for n in range(2)]
    )
    stamp = str(int(time.time() * 1000))
    signed = f"POST{public or api.url + WEBHOOK}{body}{stamp}".encode()
    headers = {
        "X-HubSpot-Request-Timestamp": stamp,
        "X-HubSpot-Signature-v3": base64.b64encode(hmac.digest(b"client-secret", signed, "sha256")).decode(),
    }
    told = api.post_bytes(body.encode(), headers=headers, key=None)
    assert told.status_code == 200
    assert [each["eventId"] for each in told.json()["results"]] == ["100", "101"]
    assert api.sql("SELECT external_id FROM webhook_events") == [("501",), ("501",)]
    headers["X-HubSpot-Request-Timestamp"] = str(int(stamp) + 1)
    assert api.post_bytes(body.encode(), headers=headers, key=None).status_code == 401


def test_records_told_by_their_ids_alone(serve: Serve) -> None:
    """Each is looked for where the connection says that a record's id is, on a path, too."""
    api = serve("webhook: {read_back: true, records: ids, id: object.id}")
    told = api.post({"ids": ["7", 8]})
    assert (told.status_code, len(told.json()["results"])) == (200, 2)
    assert api.sql("SELECT external_id FROM webhook_events ORDER BY id") == [("7",), ("8",)]


def test_a_secret_under_another_name(serve: Serve) -> None:
    """As Zoho has it: a token in the body."""
    api = serve("webhook: {secret: token}")
    assert api.post_bytes(json.dumps({"token": SECRET, **RECORD}).encode()).status_code == 200
    assert api.post(RECORD).status_code == 401
    assert SECRET not in str(api.sql("SELECT payload FROM webhook_events"))


@pytest.mark.parametrize(
    "settings", [{"external_crm_webhook_secret": None}, {"external_crm_webhook_secret": "not base64!"}]
)
def test_a_signature_without_a_usable_secret_does_not_start(serve: Serve, settings: dict[str, Any]) -> None:
    """Even where authentication is switched off."""
    with pytest.raises(SettingsError, match="EXTERNAL_CRM_WEBHOOK_SECRET"):
        serve(SIGNED, api_auth_enabled=False, **settings)


class Custom(ExternalCrmService):
    """Somebody's own service."""

    mended = False

    def process_webhook(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Change, refuse or fail."""
        if payload.get("name") == "a competitor":
            raise RecordRejected({"nama": "is on the list"})
        if payload.get("name") == "a fault" and not self.mended:
            raise ZeroDivisionError(payload["phone"])
        if payload.get("name") == "nobody":
            return {}
        return super().process_webhook({**payload, "company": "changed"})


def test_a_services_own_webhook_hook(serve: Serve) -> None:
    """It is asked for every webhook; what goes wrong in it concerns that webhook alone, and tells nothing."""
    api = serve(kind=Custom)
    assert api.post(RECORD).json()["userId"] == PHONE
    refused = api.post({**RECORD, "name": "a competitor"})
    assert refused.status_code == 422
    assert refused.json()["reasons"] == {"nama": "is on the list", "process_webhook": "refused it"}
    failed = api.post({**RECORD, "name": "a fault"})
    assert failed.status_code == 422
    assert failed.json()["reasons"] == {"process_webhook": "failed (ZeroDivisionError)"}
    assert PHONE not in api.output.getvalue().decode() + failed.text
    swallowed = api.post({"phone": "628111111111", "name": "nobody"}).json()
    assert (swallowed["action"], swallowed["status"]) == ("skipped", "applied")
    landed = [json.loads(payload) for (payload,) in api.sql("SELECT payload FROM webhook_events ORDER BY id")]
    assert [each["name"] for each in landed] == ["Budi", "a competitor", "a fault", "nobody"]
    assert [each.get("company") for each in landed] == ["changed", None, None, None]


def test_what_a_hook_did_not_let_through_is_put_before_it_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay goes through the hook: what it takes now is applied, the rest stays rejected."""
    api = serve(kind=Custom)
    event = api.post({**RECORD, "name": "a fault"}).json()["eventId"]
    api.post({"phone": "628111111111", "name": "a competitor"})
    monkeypatch.setattr(Custom, "mended", True)
    api.service.replay()
    assert api.ask("GET", f"{WEBHOOK}/{event}").json()["status"] == "applied"
    assert api.sql("SELECT nama, instansi FROM contacts") == [("a fault", "changed")]
    rejected = api.sql("SELECT reasons, attempts FROM rejects")
    assert [(json.loads(reasons), attempts) for reasons, attempts in rejected] == [
        ({"nama": "is on the list", "process_webhook": "refused it"}, 2)
    ]


def test_a_sender_that_hangs_up_does_no_harm(api: Served) -> None:
    """What it sent in full lands; half a webhook does not."""
    body = json.dumps({"secret": SECRET, **RECORD}).encode()
    start = f"POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
    request = start.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with api.connect() as connection:
        connection.sendall(request[:-5])
    eventually(lambda: any(line.get("status") == 499 for line in api.log))
    assert api.rows()[0] == 0
    with api.connect() as connection:
        connection.sendall(request)
    eventually(lambda: api.rows()[0] == 1)
