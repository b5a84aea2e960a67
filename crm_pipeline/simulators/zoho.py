"""Zoho CRM's Contacts module over HTTP: page tokens, rows judged by place, deleted records."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from crm_pipeline.simulators.answers import Handler, form_of, json_answer, json_body, object_of
from crm_pipeline.simulators.contacts import iso
from crm_pipeline.simulators.control import control_routes
from crm_pipeline.simulators.crm import RefusedError
from crm_pipeline.simulators.faultlayer import FaultLayer
from crm_pipeline.simulators.faults import CallKind
from crm_pipeline.simulators.shelf import Row, Selection
from crm_pipeline.simulators.vendor import VendorCrm, Window
from crm_pipeline.simulators.zoho_rules import (
    KNOWN,
    VENDOR,
    ZohoError,
    check,
    schema,
    shown,
    stored,
    time_text,
)
from crm_pipeline.simulators.zoho_watch import Channels

PAGE_MAX = 200
DISCRETE = 2_000
"""Records that page numbers lead to."""
DEPTH = 100_000
"""Records that page tokens lead to."""
ROWS_MAX = 100
FIELDS_MAX = 50
TOKEN_LIFE = timedelta(hours=24)
REFRESHES, REFRESH_WINDOW = 10, 600.0
_ROOT = "/crm/{version}"
_COQL = re.compile(
    r"\s*select\s+(?P<fields>[\w,.\s]+?)\s+from\s+Contacts\s+where\s+\(?(?P<field>\w+)\s*(?P<sign>=|>=)\s*"
    r"'(?P<value>(?:[^'\\]|\\.)*)'\)?(?:\s+order\s+by\s+[\w\s]+?)?(?:\s+limit\s+(?P<limit>[0-9,\s]+))?\s*",
    re.IGNORECASE | re.DOTALL,
)

_WRITES = frozenset({"create", "update", "upsert", "delete", "merge"})


class Zoho:
    """Handlers over one account."""

    def __init__(self, crm: VendorCrm) -> None:
        """Serve this account."""
        self.crm = crm
        self._places: dict[str, tuple[datetime, tuple[Any, ...], int]] = {}

    def guarded(self, kind: str, act: Callable[[Request, Any], Response]) -> Handler:
        """Check token and credits; then act, and word what is refused."""

        async def handle(request: Request) -> Response:
            try:
                payload = await json_body(request) if request.method in {"POST", "PUT"} else None
                with self.crm.lock:
                    self._admit(request)
                    self._allow(kind)
                    self.crm.calls[kind] += 1
                    answer = act(request, payload)
            except ZohoError as error:
                answer = json_answer(orjson.dumps(error.body()), error.status)
            except RefusedError as refused:
                told = ZohoError(refused.status, "INVALID_DATA", refused.message)
                answer = json_answer(orjson.dumps(told.body()), refused.status)
            if request.method != "GET":
                self.crm.logged(request.method, kind, payload, answer.status_code)
            left = self.crm.options.daily - self.crm.used_today
            if left <= self.crm.options.daily / 2:
                answer.headers["X-API-CREDITS-REMAINING"] = str(max(0, left))
            return answer

        return handle

    def _admit(self, request: Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Zoho-oauthtoken" or not self.crm.tokens.good(token):
            raise ZohoError(401, "INVALID_TOKEN", "invalid oauth token")
        if not self.crm.burst.admits() or self.crm.used_today >= self.crm.options.daily:
            raise ZohoError(429, "TOO_MANY_REQUESTS", "too many requests")
        self.crm.used_today += 1

    def _allow(self, kind: str) -> None:
        if self.crm.options.read_only and kind in _WRITES:
            raise ZohoError(401, "OAUTH_SCOPE_MISMATCH", "invalid oauth scope to access this URL")

    # --- reading ---------------------------------------------------------------------

    def item(self, row: Row, names: list[str]) -> dict[str, Any]:
        """A record with the fields that were asked for."""
        stored_fields = self.crm.fields(row)
        own = {
            "id": row.id,
            "Modified_Time": time_text(row.updated_at),
            "Created_Time": time_text(row.record["created_at"]),
        }
        return {
            name: own.get(name, shown(name, stored_fields.get(name)))
            for name in dict.fromkeys(["id", *names])
            if name in KNOWN
        }

    def listing(self, request: Request, _payload: Any) -> Response:
        """A page of contacts, by number, by token or by ids."""
        query = request.query_params
        names = [name for name in query.get("fields", "").split(",") if name]
        if not names:
            raise ZohoError(
                400, "REQUIRED_PARAM_MISSING", "One of the expected parameter is missing", param_name="fields"
            )
        if len(names) > FIELDS_MAX:
            raise ZohoError(400, "LIMIT_EXCEEDED", "too many fields", limit=FIELDS_MAX)
        size = min(int(query.get("per_page", str(PAGE_MAX))), PAGE_MAX)
        if "ids" in query:
            known = self.crm.shelf.by_id
            rows = [known[each] for each in query["ids"].split(",") if each in known]
            return self._rows(rows, names, {"more_records": False})
        chosen, descending = self._chosen(request)
        since = request.headers.get("If-Modified-Since")
        if since and not len(chosen):
            return Response(status_code=304)
        offset, seen = self._offset(request, chosen, size)
        rows = self._cut(chosen, offset, size, descending=descending)
        info: dict[str, Any] = {"per_page": size, "count": len(rows), "page": seen // size + 1}
        more = offset + len(rows) < len(chosen)
        token = self._token(chosen, rows, seen + len(rows)) if more and not descending else None
        if token and self.crm.faults.repeated_cursor:
            token = request.query_params.get("page_token", token)
        return self._rows(rows, names, {**info, "more_records": more, "next_page_token": token})

    def _chosen(self, request: Request) -> tuple[Selection, bool]:
        query, since = request.query_params, request.headers.get("If-Modified-Since")
        start = iso(_moment(since)) if since else None
        descending = query.get("sort_order", "desc") == "desc"
        if query.get("sort_by", "id") == "Modified_Time" or start:
            return self.crm.shelf.changed(start, None), descending
        return self.crm.shelf.all(), descending

    def _offset(self, request: Request, chosen: Selection, size: int) -> tuple[int, int]:
        """Where a page starts, and how many records came before it."""
        query = request.query_params
        name = query.get("page_token")
        if name is None:
            page = int(query.get("page", "1"))
            if page * size > DISCRETE:
                raise ZohoError(400, "DISCRETE_PAGINATION_LIMIT_EXCEEDED", "page limit exceeded")
            return (page - 1) * size, (page - 1) * size
        if "page" in query:
            raise ZohoError(400, "AMBIGUITY_DURING_PROCESSING", "page and page_token exclude each other")
        issued, key, seen = self._places.get(name, (datetime.min.replace(tzinfo=UTC), (), 0))
        if self.crm.clock() - issued > TOKEN_LIFE:
            raise ZohoError(400, "EXPIRED_VALUE", "the page token has ended", param_name="page_token")
        if seen + size > DEPTH:
            raise ZohoError(400, "PAGINATION_LIMIT_EXCEEDED", "page limit exceeded")
        return chosen.offset_after(key), seen

    def _cut(self, chosen: Selection, offset: int, size: int, *, descending: bool) -> list[Row]:
        if not descending:
            return chosen.cut(offset, size)
        first = max(0, len(chosen) - offset - size)
        return chosen.cut(first, len(chosen) - offset - first)[::-1]

    def _token(self, chosen: Selection, rows: list[Row], seen: int) -> str:
        name = secrets.token_hex(16)
        self._places[name] = (self.crm.clock(), chosen.key(rows[-1]), seen)
        return name

    def _rows(self, rows: list[Row], names: list[str], info: dict[str, Any]) -> Response:
        if not rows:
            return Response(status_code=204)
        return json_answer(orjson.dumps({"data": [self.item(row, names) for row in rows], "info": info}))

    def read(self, request: Request, _payload: Any) -> Response:
        """One record, in a list of its own; an unknown one is no content."""
        row = self.crm.shelf.by_id.get(request.path_params["id"])
        return self._rows([row] if row else [], sorted(KNOWN), {"count": 1})

    def deleted(self, request: Request, _payload: Any) -> Response:
        """Deleted records, newest first."""
        since = request.headers.get("If-Modified-Since")
        start = iso(_moment(since)) if since else ""
        gone = [each for each in self.crm.removed.values() if each.at >= start][::-1]
        page, size = int(request.query_params.get("page", "1")), PAGE_MAX
        cut = gone[(page - 1) * size : page * size]
        if not cut:
            return Response(status_code=204)
        items = [
            {
                "id": each.row.id,
                "display_name": "Deleted",
                "type": "recycle",
                "deleted_time": time_text(each.at),
            }
            for each in cut
        ]
        info = {"per_page": size, "count": len(cut), "page": page, "more_records": page * size < len(gone)}
        return json_answer(orjson.dumps({"data": items, "info": info}))

    def coql(self, _request: Request, payload: Any) -> Response:
        """A query with one condition."""
        found = _COQL.fullmatch(str(object_of(payload).get("select_query", "")))
        if found is None or found["field"] not in KNOWN:
            raise ZohoError(400, "SYNTAX_ERROR", "error occurred while parsing the query")
        value = re.sub(r"\\(.)", r"\1", found["value"])
        if found["field"] == VENDOR.unique and found["sign"] == "=":
            row = self.crm.by_unique(value)
            rows = [row] if row else []
        else:
            everything = self.crm.shelf.all()
            rows = [
                row
                for row in everything.cut(0, len(everything))
                if str(self.item(row, [found["field"]]).get(found["field"])) == value
            ]
        names = [name.strip() for name in found["fields"].split(",")]
        return self._rows(rows[:ROWS_MAX], names, {"count": len(rows), "more_records": False})

    # --- writing ---------------------------------------------------------------------

    def write(self, kind: str) -> Callable[[Request, Any], Response]:
        """Up to a hundred records, each with its own result, in the order sent."""

        def act(request: Request, payload: Any) -> Response:
            rows = object_of(payload).get("data")
            if not isinstance(rows, list) or not rows:
                raise ZohoError(400, "INVALID_DATA", "data is needed", api_name="data")
            if len(rows) > ROWS_MAX:
                raise ZohoError(400, "LIMIT_EXCEEDED", "too many records", limit=ROWS_MAX)
            if "id" in request.path_params:
                rows = [{**rows[0], "id": request.path_params["id"]}]
            keys = payload.get("duplicate_check_fields") or [VENDOR.unique]
            results = [self._one(kind, place, object_of(row), keys) for place, row in enumerate(rows)]
            failed = [each for each in results if each["status"] == "error"]
            status = 201 if kind == "create" else 200
            if failed:
                status = 400 if len(failed) == len(results) else 207
            return json_answer(orjson.dumps({"data": results}), status)

        return act

    def _one(self, kind: str, place: int, fields: dict[str, Any], keys: list[str]) -> dict[str, Any]:
        try:
            if kind == "create":
                return self._done(self._create(fields, place), "insert")
            if kind == "update":
                return self._done(
                    self._edit(self._row(str(fields.get("id")), place), fields, place), "update"
                )
            known = self.crm.by_unique(str(fields.get(VENDOR.unique))) if VENDOR.unique in keys else None
            if known is None:
                return self._done(self._create(fields, place), "insert")
            done = self._done(self._edit(known, fields, place), "update")
        except ZohoError as error:
            return error.body()
        return {**done, "duplicate_field": VENDOR.unique}

    def _done(self, row: Row, action: str) -> dict[str, Any]:
        user = {"name": "Simulated user", "id": "5550000800"}
        details = {
            "id": row.id,
            "Created_Time": time_text(row.record["created_at"]),
            "Modified_Time": time_text(row.updated_at),
            "Created_By": user,
            "Modified_By": user,
        }
        message = "record added" if action == "insert" else "record updated"
        return {
            "code": "SUCCESS",
            "status": "success",
            "action": action,
            "message": message,
            "details": details,
        }

    def _row(self, record_id: str, place: int) -> Row:
        row = self.crm.shelf.by_id.get(record_id)
        if row is None:
            path = f"$.data[{place}].id"
            raise ZohoError(
                400, "INVALID_DATA", "the id given seems to be invalid", api_name="id", json_path=path
            )
        return row

    def _create(self, fields: dict[str, Any], place: int) -> Row:
        check(fields, place, creating=True)
        return self._changed(lambda: self.crm.create(**stored(fields)))

    def _edit(self, row: Row, fields: dict[str, Any], place: int) -> Row:
        check(fields, place, creating=False)
        return self._changed(lambda: self.crm.edit(row.id, **stored(fields)))

    def _changed(self, change: Callable[[], dict[str, Any]]) -> Row:
        try:
            return self.crm.row(change()["id"])
        except RefusedError as refused:
            details = {"api_name": VENDOR.unique, "id": refused.code}
            raise ZohoError(400, "DUPLICATE_DATA", "duplicate data", **details) from None

    def delete(self, request: Request, _payload: Any) -> Response:
        """Into the recycle bin."""
        asked = request.path_params.get("id") or request.query_params.get("ids", "")
        results = []
        for place, record_id in enumerate(asked.split(",")):
            try:
                self.crm.delete(self._row(record_id, place).id)
                results.append(
                    {
                        "code": "SUCCESS",
                        "status": "success",
                        "message": "record deleted",
                        "details": {"id": record_id},
                    }
                )
            except ZohoError as error:
                results.append(error.body())
        return json_answer(orjson.dumps({"data": results}))

    def merge(self, request: Request, payload: Any) -> Response:
        """Merge one or two records into another."""
        children = [str(each.get("id")) for each in object_of(payload).get("merge", [{}])[0].get("data", [])]
        self.crm.merge(self._row(request.path_params["id"], 0).id, *children)
        told = {"code": "SUCCESS", "status": "success", "message": "merged", "details": {}}
        return json_answer(orjson.dumps({"merge": [told]}))

    def fields(self, request: Request, _payload: Any) -> Response:
        """The module's fields."""
        if request.query_params.get("module") != "Contacts":
            raise ZohoError(400, "INVALID_MODULE", "the module name given seems to be invalid")
        return json_answer(orjson.dumps({"fields": schema()}))


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise ZohoError(400, "INVALID_DATA", "If-Modified-Since is no ISO time") from None


def create_app(crm: VendorCrm) -> ASGIApp:
    """Put an account on HTTP."""
    account, channels = Zoho(crm), Channels(crm.clock)
    contacts = f"{_ROOT}/Contacts"
    table: list[tuple[str, str, str, Callable[[Request, Any], Response]]] = [
        ("GET", contacts, "list", account.listing),
        ("POST", contacts, "create", account.write("create")),
        ("PUT", contacts, "update", account.write("update")),
        ("DELETE", contacts, "delete", account.delete),
        ("POST", f"{contacts}/upsert", "upsert", account.write("upsert")),
        ("GET", f"{contacts}/deleted", "deleted", account.deleted),
        ("POST", f"{contacts}/{{id}}/actions/merge", "merge", account.merge),
        ("GET", f"{contacts}/{{id}}", "read", account.read),
        ("PUT", f"{contacts}/{{id}}", "update", account.write("update")),
        ("DELETE", f"{contacts}/{{id}}", "delete", account.delete),
        ("POST", f"{_ROOT}/coql", "coql", account.coql),
        ("GET", f"{_ROOT}/settings/fields", "fields", account.fields),
        ("GET", f"{_ROOT}/actions/watch", "watch", channels.listing),
        ("POST", f"{_ROOT}/actions/watch", "watch", channels.make),
        ("PUT", f"{_ROOT}/actions/watch", "watch", channels.renew),
    ]
    routes = [Route(path, account.guarded(kind, act), methods=[method]) for method, path, kind, act in table]
    routes += [
        Route("/oauth/v2/token", token_route(crm), methods=["POST"]),
        *control_routes(crm),
    ]
    return FaultLayer(Starlette(routes=routes), crm, _kind, _plain_error)


def token_route(crm: VendorCrm) -> Handler:
    """OAuth: errors come with status 200, and only so many tokens in ten minutes."""
    refreshes = Window(REFRESHES, REFRESH_WINDOW)

    async def handle(request: Request) -> Response:
        wrong = crm.tokens.refuses(await form_of(request))
        if wrong:
            error = {"client_id": "invalid_client", "client_secret": "invalid_client_secret"}
            return json_answer(orjson.dumps({"error": error.get(wrong, "invalid_code")}))
        if not refreshes.admits():
            text = "You have made too many requests continuously. Please try again after some time."
            told = {"error": "Access Denied", "error_description": text, "status": "failure"}
            return json_answer(orjson.dumps(told), 400)
        body = {
            "access_token": crm.tokens.issue(),
            "scope": "ZohoCRM.modules.ALL",
            "api_domain": str(request.base_url).rstrip("/"),
            "token_type": "Bearer",
            "expires_in": int(crm.options.token_life),
        }
        return json_answer(orjson.dumps(body))

    return handle


def _kind(scope: Scope) -> CallKind | None:
    path = scope["path"]
    if not path.startswith("/crm/"):
        return None
    if path.endswith("/coql"):
        return "read"
    if scope["method"] != "GET":
        return "write"
    return "list" if path.endswith("/Contacts") else "read"


def _plain_error(code: str, message: str) -> dict[str, Any]:
    word = "TOO_MANY_REQUESTS" if code == "rate_limited" else "INTERNAL_ERROR"
    return {"code": word, "details": {}, "message": message, "status": "error"}
