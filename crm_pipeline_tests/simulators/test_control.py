"""Steering and watching a simulator from outside."""

from __future__ import annotations

import asyncio

from starlette.types import Message

from crm_pipeline.simulators.generic import GenericCrm, create_app
from crm_pipeline_tests.simulators.conftest import Serve


def test_stats_count_what_happened(serve: Serve) -> None:
    """Requests, calls by kind and faults by name; control requests count nowhere."""
    client = serve(GenericCrm.seeded(3))
    client.sim("POST", "faults", {"faults": ["server_error=2"]})
    for _ in range(3):
        client.page()
    assert client.sim("GET", "stats").json() == {
        "contacts": 3,
        "requests": 3,
        "calls": {"list": 2},
        "faults": {"server_error": 1},
        "broken": 0,
        "webhooks": None,
    }


def test_edit_does_what_a_person_in_the_crm_would(serve: Serve) -> None:
    """Change, create and delete, without the API's log and counts."""
    client = serve(GenericCrm.seeded(2))
    assert client.sim("POST", "edit", {"id": "100001", "fields": {"notes": "x"}}).json()["notes"] == "x"
    created = client.sim("POST", "edit", {"fields": {"name": "New", "ticket_price": "abc"}})
    assert (created.status_code, created.json()["id"]) == (201, "100003")
    assert client.sim("POST", "edit", {"id": "100002", "delete": True}).status_code == 200
    assert list(client.crm.records) == ["100001", "100003"]
    assert client.sim("POST", "edit", {"id": "nobody", "fields": {}}).status_code == 404
    assert not client.crm.log
    assert not client.crm.calls


def test_faults_are_switched_while_it_runs(serve: Serve) -> None:
    """The list given replaces all faults; a mistake changes nothing and says what there is."""
    client = serve(GenericCrm.seeded(20))
    client.sim("POST", "faults", {"faults": ["bad_record=5", "latency=0"], "seed": 3})
    assert client.sim("GET", "broken").json()["broken"] == client.crm.broken
    assert len(client.crm.broken) == 4
    wrong = client.sim("POST", "faults", {"faults": ["typo"]})
    assert wrong.status_code == 422
    assert "bad_record=K" in wrong.json()["error"]["message"]
    assert client.crm.faults.bad_record == 5
    client.sim("POST", "faults", {"faults": []})
    assert client.crm.broken == {}


def test_the_log_shows_writes_as_received(serve: Serve) -> None:
    """Another process can see each write's body."""
    client = serve(GenericCrm.seeded(1))
    client.call("PATCH", "/100001", json={"notes": "n"})
    (write,) = client.sim("GET", "log").json()["writes"]
    assert (write["kind"], write["id"], write["payload"], write["status"]) == (
        "update",
        "100001",
        {"notes": "n"},
        200,
    )


def test_a_wrong_order_is_refused(serve: Serve) -> None:
    """422 with a reason, and nothing is changed."""
    client = serve(GenericCrm.seeded(1))
    wrong: dict[str, list[object]] = {
        "edit": [[], {"id": 1, "fields": {}}, {"delete": True}],
        "faults": [{"faults": "x"}],
    }
    for name, bodies in wrong.items():
        for body in bodies:
            answer = client.sim("POST", name, body)
            assert answer.status_code == 422, (name, body)
            assert answer.json()["error"]["message"]
    assert len(client.crm.records) == 1


def test_other_machines_may_not_steer() -> None:
    """A caller from elsewhere is 403, whatever it asks for."""
    app, sent = create_app(GenericCrm.seeded(1)), []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    for method, path in (
        ("GET", "/sim/stats"),
        ("GET", "/sim/log"),
        ("POST", "/sim/edit"),
        ("POST", "/sim/faults"),
    ):
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [],
            "client": ("192.0.2.7", 50_000),
        }
        asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    assert [message["status"] for message in sent if message["type"] == "http.response.start"] == [403] * 4
