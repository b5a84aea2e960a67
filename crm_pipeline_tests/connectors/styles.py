"""Three small CRMs of different style, as the page on describing one's own CRM tells of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from crm_pipeline.simulators.contacts import phone_of

KEY = "key:secret"
PAGE = 100
START = datetime(2026, 1, 5, 3, 0, 0, 123456, tzinfo=UTC)
JAKARTA = ZoneInfo("Asia/Jakarta")


@dataclass
class Style:
    """A CRM's records by id, in the order of change, and the requests it saw."""

    name: str
    auth: tuple[str, str]
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    listed: list[dict[str, str]] = field(default_factory=list)
    writes: list[Any] = field(default_factory=list)
    now: datetime = START

    def tick(self) -> datetime:
        """A later moment."""
        self.now += timedelta(seconds=1)
        return self.now

    def right(self, request: Request) -> bool:
        """Whether the request proves who it is."""
        return request.headers.get(self.auth[0]) == self.auth[1]


Handle = Callable[[Style, Request, Any], Response]


def route(style: Style, path: str, method: str, handle: Handle) -> Route:
    """A route that asks for the key."""

    async def endpoint(request: Request) -> Response:
        if not style.right(request):
            return JSONResponse({"error": "unauthorized"}, 401)
        body = await request.body()
        payload = json.loads(body) if body else None
        if method != "GET":
            style.writes.append(payload)
        elif "{" not in path:
            style.listed.append(dict(request.query_params))
        return handle(style, request, payload)

    return Route(path, endpoint, methods=[method])


def one(style: Style, request: Request) -> dict[str, Any] | None:
    """The record that a path names."""
    return style.records.get(request.path_params["id"])


MISSING = JSONResponse({"error": "not found"}, 404)


# Bracketed arrays.


def brackets(count: int) -> tuple[Style, ASGIApp]:
    """``{"total", "list"}``, ``where[0][…]``, whole seconds of UTC, phones as a list."""
    style = Style("brackets", ("X-Api-Key", KEY))
    for number in range(count):
        phones = [
            {"phoneNumber": f"+{phone_of(number)}", "type": "Mobile"},
            {"phoneNumber": "+6281", "type": "Fax"},
        ]
        record = {"id": f"id{number:04d}", "name": f"Contoh {number}", "phoneNumberData": phones}
        style.records[f"id{number:04d}"] = record | {"modifiedAt": _seconds(style.tick()), "chatId": None}
    path = "/api/v1/Contact"
    return style, Starlette(
        routes=[
            route(style, path, "GET", _brackets_list),
            route(style, path, "POST", _brackets_create),
            route(style, f"{path}/{{id}}", "GET", lambda s, r, _: _answer(one(s, r))),
            route(style, f"{path}/{{id}}", "PATCH", _brackets_update),
        ]
    )


def _seconds(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _answer(found: Any) -> Response:
    return MISSING if found is None else JSONResponse(found)


def _brackets_list(style: Style, request: Request, _payload: Any) -> Response:
    query = request.query_params
    kind, value = query.get("where[0][type]"), query.get("where[0][value]")
    name = query.get("where[0][attribute]", "")
    found = sorted(style.records.values(), key=lambda each: str(each["modifiedAt"]))
    if kind == "greaterThanOrEquals":
        assert value is not None
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", value)
        found = [each for each in found if str(each[name]) >= value]
    elif kind == "equals":
        found = [each for each in found if each.get(name) == value]
    offset = int(query.get("offset", "0"))
    return JSONResponse({"total": len(found), "list": found[offset : offset + PAGE]})


def _brackets_create(style: Style, _request: Request, payload: Any) -> Response:
    key = f"new{len(style.records)}"
    style.records[key] = {"id": key, **payload, "modifiedAt": _seconds(style.tick())}
    return JSONResponse(style.records[key], 200)


def _brackets_update(style: Style, request: Request, payload: Any) -> Response:
    found = one(style, request)
    if found is not None:
        found |= {**payload, "modifiedAt": _seconds(style.tick())}
    return _answer(found)


# JSON in parameters.


def in_json(count: int) -> tuple[Style, ASGIApp]:
    """JSON in parameters, local times with microseconds, ids that are names."""
    style = Style("json", ("Authorization", f"token {KEY}"))
    for number in range(count):
        name = f"Contoh {number} / Bandung"
        record = {"name": name, "lead_name": f"Contoh {number}", "whatsapp_id": phone_of(number)}
        style.records[name] = record | {"modified": _local(style.tick()), "contact_date": None}
    path = "/api/resource/Lead"
    return style, Starlette(
        routes=[
            route(style, path, "GET", _json_list),
            route(style, path, "POST", _json_create),
            route(style, f"{path}/{{id:path}}", "GET", lambda s, r, _: _wrapped(one(s, r))),
            route(style, f"{path}/{{id:path}}", "PUT", _json_update),
        ]
    )


def _local(moment: datetime) -> str:
    return f"{moment.astimezone(JAKARTA):%Y-%m-%d %H:%M:%S.%f}"


def _wrapped(found: Any, status: int = 200) -> Response:
    return MISSING if found is None else JSONResponse({"data": found}, status)


def _json_list(style: Style, request: Request, _payload: Any) -> Response:
    query = request.query_params
    assert json.loads(query["fields"]) == ["*"]
    found = sorted(style.records.values(), key=lambda each: str(each["modified"]))
    for name, sign, value in json.loads(query.get("filters", "[]")):
        found = [each for each in found if (each[name] >= value if sign == ">=" else each[name] == value)]
    start = int(query.get("limit_start", "0"))
    return JSONResponse({"data": found[start : start + PAGE]})


def _json_create(style: Style, _request: Request, payload: Any) -> Response:
    name = f"{payload.get('lead_name', 'new')} #{len(style.records)}"
    style.records[name] = {**payload, "name": name, "modified": _local(style.tick())}
    return _wrapped(style.records[name])


def _json_update(style: Style, request: Request, payload: Any) -> Response:
    found = one(style, request)
    if found is not None:
        found |= {**payload, "name": found["name"], "modified": _local(style.tick())}
    return _wrapped(found)


# Nested.


def nested(count: int) -> tuple[Style, ASGIApp]:
    """Null until the first change, nested names, phones as objects, bulk create."""
    style = Style("nested", ("Authorization", f"Bearer {KEY}"))
    for number in range(count):
        _person(
            style,
            {"name": {"first": "Contoh", "last": str(number)}, "phones": [{"number": phone_of(number)}]},
        )
    path = "/v2/people"
    return style, Starlette(
        routes=[
            route(style, path, "GET", _nested_list),
            route(style, f"{path}/bulk", "POST", _nested_bulk),
            route(style, f"{path}/{{id}}", "GET", lambda s, r, _: _answer(one(s, r))),
            route(style, f"{path}/{{id}}", "PATCH", _nested_update),
        ]
    )


def _person(style: Style, fields: dict[str, Any]) -> dict[str, Any]:
    key = 1000 + len(style.records)
    person = {"personId": key, **fields, "created": _zulu(style.tick()), "modified": None}
    style.records[str(key)] = person
    return person


def _zulu(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _nested_list(style: Style, request: Request, _payload: Any) -> Response:
    query = request.query_params
    found = sorted(style.records.values(), key=lambda each: str(each["personId"]))
    if query.get("filter"):
        told = re.fullmatch(
            r"modified ge (\S+) or \(modified eq null and created ge (\S+)\)", query["filter"]
        )
        assert told is not None
        assert told[1] == told[2]
        found = [each for each in found if str(each["modified"] or each["created"]) >= told[1]]
    start = int(query.get("cursor", "0"))
    following = str(start + PAGE) if start + PAGE < len(found) else None
    return JSONResponse({"value": found[start : start + PAGE], "next": following})


def _nested_bulk(style: Style, _request: Request, payload: Any) -> Response:
    assert isinstance(payload, list)
    results = [{"status": 201, "person": _person(style, fields)} for fields in payload]
    return JSONResponse({"results": results}, 202)


def _nested_update(style: Style, request: Request, payload: Any) -> Response:
    found = one(style, request)
    if found is not None:
        found |= {**payload, "modified": _zulu(style.tick())}
    return _answer(found)


STYLES: dict[str, Callable[[int], tuple[Style, ASGIApp]]] = {
    "brackets": brackets,
    "json": in_json,
    "nested": nested,
}
