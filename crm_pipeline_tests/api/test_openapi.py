"""The OpenAPI document: true of every route, and of what they answer."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from crm_pipeline.api.openapi import document
from crm_pipeline.api.routes import ROUTES
from crm_pipeline.connection import Webhook
from crm_pipeline_tests.api.conftest import Serve
from crm_pipeline_tests.api.served import RECORD, SECRET, WEBHOOK, Served

DOCUMENT = document(ROUTES, Webhook(), keyed=True)


def schema(name: str) -> dict[str, Any]:
    """A named schema with all it refers to."""
    return {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}


def test_it_is_served_behind_the_key(shared: Served) -> None:
    """As it is made, to those who have a key."""
    assert shared.ask("GET", "/openapi.json").json() == json.loads(json.dumps(DOCUMENT))
    assert shared.ask("GET", "/openapi.json", key=None).status_code == 401


def test_every_reference_leads_somewhere() -> None:
    """No schema is missing, none is left over."""
    text = json.dumps(DOCUMENT)
    named = set(DOCUMENT["components"]["schemas"])
    assert {name for name in named if f'"#/components/schemas/{name}"' in text} == named
    assert text.count("#/components/schemas/") == sum(
        text.count(f'"#/components/schemas/{name}"') for name in named
    )


def test_every_route_is_there_with_its_key_and_its_refusals() -> None:
    """Everything but healthz asks for the key and can refuse, in one form."""
    assert set(DOCUMENT["paths"]) == {
        WEBHOOK,
        f"{WEBHOOK}/{{event_id}}",
        "/api/external/fetch",
        "/api/external/push/{contact_id}",
        "/api/external/status",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
    }
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            public = path == "/healthz"
            assert operation["security"] == ([] if public else [{"ApiKey": []}])
            assert public or {"401", "403", "429", "500"} <= set(operation["responses"])
            assert {"400", "408", "414", "431", "503"} <= set(operation["responses"])
            if method != "head":
                for status, answer in operation["responses"].items():
                    assert status == "200" or list(answer["content"]) == ["application/problem+json"]


def test_without_keys_it_asks_for_none(serve: Serve) -> None:
    """Nor does it name them; all else is as ever."""
    told = serve(api_auth_enabled=False, crm_api_key=None).ask("GET", "/openapi.json", key=None).json()
    assert "securitySchemes" not in told["components"]
    for path, operations in told["paths"].items():
        for method, operation in operations.items():
            assert operation.items() < DOCUMENT["paths"][path][method].items()
            assert "security" not in operation


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/api/external/status"])
def test_refusals_of_the_wire_are_as_described(shared: Served, path: str) -> None:
    """Too much of an address or of headers, or no HTTP: at each path, answered as its document says."""
    known = DOCUMENT["paths"][path]["get"]["responses"]
    long, many = "x" * 9000, "".join(f"h{n}: x\r\n" for n in range(101))
    for head, status in (
        (f"GET {path}?{long} HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (f"GET {path} HTTP/1.1\r\n{many}\r\n", 431),
        (f"GET {path} HTTP/1.1\r\nno header\r\n\r\n", 400),
    ):
        reply = shared.raw(head.encode())
        assert reply.status == status
        assert str(status) in known
        jsonschema.validate(reply.json, schema("Problem"))


@pytest.mark.parametrize(
    "method, path, name",
    [
        ("GET", "/api/external/status", "Status"),
        ("GET", "/healthz", "Health"),
        ("GET", "/readyz", "Health"),
        ("GET", "/nowhere", "Problem"),
        ("PUT", WEBHOOK, "Problem"),
        ("GET", f"{WEBHOOK}/none", "Problem"),
    ],
)
def test_answers_are_as_described(shared: Served, method: str, path: str, name: str) -> None:
    """What is answered fits the schema that the document names."""
    jsonschema.validate(shared.ask(method, path).json(), schema(name))


def test_webhook_answers_are_as_described(shared: Served) -> None:
    """One record, a list, a rejected one, and what became of it."""
    batch = [{"secret": SECRET, **each} for each in (RECORD, {"phone": "x"})]
    single, listed, rejected = shared.post(RECORD), shared.post(batch), shared.post({"phone": "y"})
    jsonschema.validate(single.json(), schema("WebhookAnswer"))
    jsonschema.validate(listed.json(), schema("WebhookAnswer"))
    jsonschema.validate(rejected.json(), schema("Problem"))
    event = shared.ask("GET", f"{WEBHOOK}/{rejected.json()['eventId']}")
    jsonschema.validate(event.json(), schema("Event"))
    jsonschema.validate(batch, schema("WebhookBody"))
    for answer in (single, listed, rejected, event):
        assert answer.headers["X-Request-Id"]


def test_figures_for_prometheus(shared: Served) -> None:
    """Requests by route and status, webhooks by action, and how the sync stands."""
    shared.post({"phone": "628222222222"})
    shared.ask("GET", "/nowhere")
    answer = shared.ask("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert 'crm_http_requests_total{method="POST",route="/api/external/webhook",status="200"}' in answer.text
    assert 'crm_http_requests_total{method="GET",route="none",status="404"}' in answer.text
    assert 'crm_webhook_events_total{action="created"}' in answer.text
    assert "crm_backlog " in answer.text
    assert "crm_http_request_seconds_bucket" in answer.text
    assert shared.ask("GET", "/metrics", key=None).status_code == 401
