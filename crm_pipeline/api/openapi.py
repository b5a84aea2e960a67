"""The OpenAPI document: made of the table of routes, so that it cannot say anything else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from crm_pipeline import __version__
from crm_pipeline.api.bodies import MAX_ITEMS
from crm_pipeline.api.problems import MEDIA_TYPE
from crm_pipeline.connection import Webhook
from crm_pipeline.contact import BUILT_IN

if TYPE_CHECKING:
    from crm_pipeline.api.routes import Route

_TEXT: dict[str, Any] = {"type": "string"}
_MAYBE_TEXT: dict[str, Any] = {"type": ["string", "null"]}
_WHOLE: dict[str, Any] = {"type": "integer", "minimum": 0}
_RECORD = {"$ref": "#/components/schemas/Record"}
_REASONS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": _TEXT,
    "description": "What is wrong, by field.",
}
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


def _object(required: Iterable[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


def _choice(*choices: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(choices)}


_RECEIPT = {
    "success": {"type": "boolean"},
    "userId": _MAYBE_TEXT,
    "action": _choice("created", "updated", "unchanged", "skipped", "rejected", "conflict"),
    "eventId": _TEXT,
    "status": _choice("landed", "applied", "rejected"),
    "reasons": _REASONS,
}
_COUNTS = _object(
    ("seen", "created", "updated", "unchanged", "skipped", "rejected"),
    **dict.fromkeys(("seen", "created", "updated", "unchanged", "skipped", "rejected"), _WHOLE),
)

SCHEMAS: Mapping[str, dict[str, Any]] = {
    "Problem": _object(
        ("type", "title", "status", "detail", "success"),
        type=_TEXT,
        title=_TEXT,
        status={"type": "integer"},
        detail=_TEXT,
        success={"const": False},
        eventId=_TEXT,
        reasons=_REASONS,
        runId=_TEXT,
    ),
    "Record": {
        "type": "object",
        "description": "A contact in the CRM's names, with the webhook's secret unless it is signed. "
        "Absent leaves a field alone, null clears it.",
        "properties": {
            "secret": _TEXT,
            **{name: {} for field in BUILT_IN.values() for name in field.external_names},
        },
    },
    "WebhookAnswer": {
        "oneOf": [
            _object(("success", "userId", "action", "eventId", "status"), **_RECEIPT),
            _object(
                ("success", "results"),
                success={"type": "boolean"},
                results={
                    "type": "array",
                    "items": _object(("success", "userId", "action", "eventId", "status"), **_RECEIPT),
                },
            ),
        ]
    },
    "Event": _object(
        ("eventId", "status", "action", "userId", "receivedAt"),
        eventId=_TEXT,
        status=_RECEIPT["status"],
        action=_RECEIPT["action"],
        userId=_MAYBE_TEXT,
        receivedAt=_TEXT,
        appliedAt=_MAYBE_TEXT,
        attempts=_WHOLE,
        reasons=_REASONS,
        runId=_MAYBE_TEXT,
    ),
    "Fetched": _object(
        ("success", "syncedRecords", "userIds", "runId", "counts"),
        success={"const": True},
        syncedRecords=_WHOLE,
        userIds={"type": "array", "items": _TEXT},
        runId=_TEXT,
        counts=_COUNTS,
    ),
    "Pushed": _object(
        ("success", "userId", "message", "externalId", "action"),
        success={"const": True},
        userId=_TEXT,
        message=_TEXT,
        externalId=_TEXT,
        action=_choice("created", "updated", "unchanged"),
        reasons=_REASONS,
    ),
    "Status": _object(
        ("enabled", "mode", "polling", "configured"),
        enabled={"type": "boolean"},
        mode=_choice("webhook", "polling"),
        polling=_choice("inactive", "active"),
        configured={"type": "boolean"},
    ),
    "Health": _object(("status",), status=_TEXT),
    "OpenApi": {"type": "object"},
}
_BODIES: Mapping[str, dict[str, Any]] = {
    "records": {
        "oneOf": [
            _RECORD,
            {"type": "array", "minItems": 1, "maxItems": MAX_ITEMS, "items": _RECORD},
        ]
    },
    "hubspot": {
        "type": "array",
        "description": "HubSpot's events.",
        "minItems": 1,
        "maxItems": MAX_ITEMS,
        "items": {"type": "object"},
    },
    "zoho": _object(
        ("token",),
        token=_TEXT,
        module=_TEXT,
        operation=_TEXT,
        ids={"type": "array", "maxItems": MAX_ITEMS, "items": _TEXT},
    ),
    "salesforce": {"type": "string", "description": "An outbound message of Salesforce's."},
}
"""What a webhook's body is, by the connection's format."""
_XML = "text/xml"
_DETAILS = {
    "X-Request-Id": "Names the request in the log; it is kept with what landed.",
}


def document(routes: Iterable[Route], webhook: Webhook, *, keyed: bool) -> dict[str, Any]:
    """The API as OpenAPI 3.1, with webhooks as the connection has them; ``keyed``: keys are asked for."""
    paths: dict[str, Any] = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\1}", route.path)
        for method in route.methods:
            paths.setdefault(path, {})[method.lower()] = _operation(route, method)
    for path in paths.values():
        for operation in path.values():
            if "requestBody" in operation:
                _describe_webhook(operation, webhook)
            if not keyed:
                del operation["security"]
    components: dict[str, Any] = {"schemas": {**SCHEMAS, "WebhookBody": _BODIES[webhook.format]}}
    if keyed:
        components["securitySchemes"] = {"ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "crm_pipeline", "version": __version__},
        "paths": paths,
        "components": components,
    }


def _operation(route: Route, method: str) -> dict[str, Any]:
    headers = {name: {"description": text, "schema": _TEXT} for name, text in _DETAILS.items()}
    good: dict[str, Any] = {"description": "Done.", "headers": headers}
    if method != "HEAD":
        schema = {"$ref": f"#/components/schemas/{route.answer}"} if route.answer else _TEXT
        good["content"] = {route.media_type: {"schema": schema}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.name}_{method.lower()}",
        "responses": {"200": good, **{str(status): _refusal(status, method) for status in route.refusals}},
        "security": [] if route.public else [{"ApiKey": []}],
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {**_TEXT, "pattern": f"^{route.parameter}$"}}
        for name in _PARAMETER.findall(route.path)
    ]
    parameters += [
        {"name": name, "in": "header", "schema": {"type": "string", "maxLength": 255, "pattern": "^[!-~]+$"}}
        for name in route.headers
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{route.body}"}}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _describe_webhook(operation: dict[str, Any], webhook: Webhook) -> None:
    """Vendors and signatures do without the key; Salesforce speaks XML."""
    if webhook.signature is not None or webhook.format != "records":
        operation["security"] = [{}, {"ApiKey": []}]
    if webhook.format != "salesforce":
        return
    operation["requestBody"]["content"] = {_XML: {"schema": {"$ref": "#/components/schemas/WebhookBody"}}}
    operation["responses"]["200"]["content"] = {_XML: {"schema": _TEXT}}
    operation["parameters"].append({"name": webhook.secret, "in": "query", "required": True, "schema": _TEXT})


def _refusal(status: int, method: str) -> dict[str, Any]:
    refusal: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if method != "HEAD":
        refusal["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return refusal
