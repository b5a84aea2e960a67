"""Salesforce's Contact object over HTTP: SOQL, records, collections, tokens without an end that is told."""

from __future__ import annotations

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
from crm_pipeline.simulators.control import control_routes
from crm_pipeline.simulators.crm import RefusedError
from crm_pipeline.simulators.faultlayer import FaultLayer
from crm_pipeline.simulators.faults import CallKind
from crm_pipeline.simulators.salesforce_bulk import Jobs
from crm_pipeline.simulators.salesforce_rules import (
    KNOWN,
    RELATION,
    VENDOR,
    SalesforceError,
    check,
    describe,
    item_of,
    stored,
    time_text,
)
from crm_pipeline.simulators.shelf import Row
from crm_pipeline.simulators.soql import Query, QueryError
from crm_pipeline.simulators.vendor import Removed, VendorCrm

PAGE = 2000
COLLECTION_MAX = 200
_ROOT = "/services/data/{version}"
_NO_CONTENT = 204


class Salesforce:
    """Handlers over one org."""

    def __init__(self, crm: VendorCrm) -> None:
        """Serve this org."""
        self.crm = crm
        self.jobs = Jobs(crm, self._one)
        self._cursors: dict[str, list[tuple[Row, Removed | None]]] = {}
        self._asked: dict[str, tuple[str, ...]] = {}

    def guarded(self, kind: str, act: Callable[[Request, Any], Response]) -> Handler:
        """Check token and quota; then act, and word what is refused."""

        async def handle(request: Request) -> Response:
            try:
                payload = await _payload(request)
                with self.crm.lock:
                    self._admit(request)
                    self.jobs.work()
                    self.crm.calls[kind] += 1
                    answer = act(request, payload)
            except SalesforceError as error:
                answer = json_answer(orjson.dumps([error.body()]), error.status)
            except QueryError as error:
                told = SalesforceError(400, "MALFORMED_QUERY", str(error))
                answer = json_answer(orjson.dumps([told.body()]), 400)
            except RefusedError as refused:
                told = SalesforceError(refused.status, "NOT_FOUND", "The requested resource does not exist")
                answer = json_answer(orjson.dumps([told.body()]), refused.status)
            if request.method != "GET":
                content = None if isinstance(payload, bytes) else payload
                self.crm.logged(request.method, kind, content, answer.status_code)
            used = f"api-usage={self.crm.used_today}/{self.crm.options.daily}"
            answer.headers["Sforce-Limit-Info"] = f"{used}; per-app-api-usage=1/250(appName=demo)"
            return answer

        return handle

    def _admit(self, request: Request) -> None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not self.crm.tokens.good(token):
            raise SalesforceError(401, "INVALID_SESSION_ID", "Session expired or invalid")
        self.crm.burst.admits()
        if self.crm.used_today >= self.crm.options.daily:
            raise SalesforceError(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        self.crm.used_today += 1

    # --- reading ---------------------------------------------------------------------

    def whole(self, row: Row, removed: Removed | None = None) -> dict[str, Any]:
        """A record with all its fields, as queries compare them."""
        stamp = time_text(removed.at if removed else row.updated_at)
        fields: dict[str, Any] = dict.fromkeys(KNOWN) | self.crm.fields(row)
        return fields | {
            "Id": row.id,
            "CreatedDate": time_text(row.record["created_at"]),
            "LastModifiedDate": stamp,
            "SystemModstamp": stamp,
            "IsDeleted": removed is not None,
            "MasterRecordId": removed.merged_into if removed else None,
        }

    def query(self, request: Request, _payload: Any) -> Response:
        """The first page of a query; what is deleted shows with ``queryAll`` only."""
        parsed = Query.parsed(request.query_params.get("q", ""))
        for name in parsed.fields:
            if name not in KNOWN and not RELATION.fullmatch(name):
                raise SalesforceError(400, "INVALID_FIELD", f"No such column '{name}' on entity 'Contact'.")
        rows = self._matching(parsed, deleted=request.url.path.rstrip("/").endswith("queryAll"))
        rows = rows[: parsed.limit] if parsed.limit is not None else rows
        return self._page(request, rows, 0, len(rows), parsed.fields)

    def more(self, request: Request, _payload: Any) -> Response:
        """A further page of a query, from what it had found when it was asked."""
        name, _, offset = request.path_params["locator"].rpartition("-")
        if name not in self._cursors:
            raise SalesforceError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        rows = self._cursors[name]
        return self._page(request, rows, int(offset), len(rows), self._asked[name], name)

    def _matching(self, parsed: Query, *, deleted: bool) -> list[tuple[Row, Removed | None]]:
        since = parsed.since()
        start = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z") if since else None
        chosen = self.crm.shelf.changed(start, None) if start else self.crm.shelf.all()
        found: list[tuple[Row, Removed | None]] = [(row, None) for row in chosen.cut(0, len(chosen))]
        if deleted:
            found += [(each.row, each) for each in self.crm.removed.values()]
        if parsed.conditions:
            found = [each for each in found if self._holds(parsed, *each)]
        if parsed.order[:1] == ("SystemModstamp",):
            found.sort(key=lambda each: (each[1].at if each[1] else each[0].updated_at, each[0].id))
        return found

    def _holds(self, parsed: Query, row: Row, removed: Removed | None) -> bool:
        record = self.whole(row, removed)
        return all(condition.holds(record) for condition in parsed.conditions)

    def _page(
        self,
        request: Request,
        rows: list[tuple[Row, Removed | None]],
        offset: int,
        total: int,
        fields: tuple[str, ...],
        name: str = "",
    ) -> Response:
        page, version = rows[offset : offset + PAGE], request.path_params["version"]
        done = offset + PAGE >= total
        body: dict[str, Any] = {"totalSize": total, "done": done}
        if not done:
            name = name or f"0r8xx{len(self._cursors):010d}"
            self._cursors[name], self._asked[name] = rows, fields
            following = offset if offset and self.crm.faults.repeated_cursor else offset + PAGE
            link = f"/services/data/{version}/query/{name}-{following}"
            body["nextRecordsUrl"] = self.crm.faults.foreign_next_link + link
        body["records"] = [item_of(self.whole(*each), fields, version) for each in page]
        return json_answer(orjson.dumps(body))

    def recent(self, request: Request, _payload: Any) -> Response:
        """What the guide's URL really answers: no list of contacts."""
        version = request.path_params["version"]
        rows = self.crm.shelf.all().cut(0, 3)
        items = [item_of(self.whole(row), ("Id", "Name"), version) for row in rows]
        return json_answer(orjson.dumps({"objectDescribe": {"name": "Contact"}, "recentItems": items}))

    def read(self, request: Request, _payload: Any) -> Response:
        """One record."""
        row = self._row(request.path_params["id"])
        version = request.path_params["version"]
        return json_answer(orjson.dumps(item_of(self.whole(row), tuple(sorted(KNOWN)), version)))

    def changed(self, request: Request, _payload: Any) -> Response:
        """Ids of contacts deleted, or updated, between two times."""
        start, end = (_time(request.query_params.get(name, "")) for name in ("start", "end"))
        covered = time_text(self.crm.stamp())
        if request.url.path.rstrip("/").endswith("updated"):
            chosen = self.crm.shelf.changed(start, end)
            ids = [row.id for row in chosen.cut(0, len(chosen))]
            return json_answer(orjson.dumps({"ids": ids, "latestDateCovered": covered}))
        gone = [
            {"id": each.row.id, "deletedDate": time_text(each.at)}
            for each in self.crm.removed.values()
            if start <= each.at < end
        ]
        body = {"deletedRecords": gone, "earliestDateAvailable": covered, "latestDateCovered": covered}
        return json_answer(orjson.dumps(body))

    def _row(self, record_id: str) -> Row:
        found = self.crm.shelf.by_id.get(record_id)
        if found is not None:
            return found
        if record_id in self.crm.removed:
            raise SalesforceError(404, "ENTITY_IS_DELETED", "entity is deleted")
        if not record_id.startswith("003"):
            raise SalesforceError(400, "MALFORMED_ID", "Record ID: id value of incorrect type")
        raise SalesforceError(404, "NOT_FOUND", "The requested resource does not exist")

    # --- writing ---------------------------------------------------------------------

    def create(self, _request: Request, payload: Any) -> Response:
        """A new record."""
        row = self._create(object_of(payload))
        return json_answer(orjson.dumps({"id": row.id, "success": True, "errors": []}), 201)

    def update(self, request: Request, payload: Any) -> Response:
        """Some fields of a record."""
        self._edit(self._row(request.path_params["id"]), object_of(payload))
        return Response(status_code=_NO_CONTENT)

    def delete(self, request: Request, _payload: Any) -> Response:
        """Into the recycle bin."""
        self.crm.delete(self._row(request.path_params["id"]).id)
        return Response(status_code=_NO_CONTENT)

    def upsert(self, request: Request, payload: Any) -> Response:
        """A record by its external id."""
        name, value = request.path_params["field"], request.path_params["value"]
        row, created = self._upsert(name, value, object_of(payload))
        body = {"id": row.id, "success": True, "errors": [], "created": created}
        return json_answer(orjson.dumps(body), 201 if created else 200)

    def collection(self, kind: str) -> Callable[[Request, Any], Response]:
        """Up to 200 records, each with its own result, in the order sent."""

        def act(request: Request, payload: Any) -> Response:
            records = object_of(payload).get("records")
            if not isinstance(records, list) or len(records) > COLLECTION_MAX:
                raise SalesforceError(400, "LIMIT_EXCEEDED", "record limit reached: 200")
            named = request.path_params.get("field")
            keys = [each.get(named) for each in records] if named else []
            double = {key for key in keys if keys.count(key) > 1}
            return json_answer(orjson.dumps([self._one(kind, named, each, double) for each in records]))

        return act

    def _one(self, kind: str, named: str | None, record: dict[str, Any], double: set[Any]) -> dict[str, Any]:
        fields = {name: value for name, value in record.items() if name not in {"attributes", "id", "Id"}}
        key = fields.pop(str(named), None) if named else None
        try:
            if kind == "create":
                return {"id": self._create(fields).id, "success": True, "errors": []}
            if kind == "update":
                row = self._edit(self._row(str(record.get("id") or record.get("Id"))), fields)
                return {"id": row.id, "success": True, "errors": []}
            _refuse_double(key, double)
            row, created = self._upsert(str(named), str(key), fields)
        except SalesforceError as error:
            item = {"statusCode": error.code, "message": error.message, "fields": list(error.fields)}
            return {"success": False, "errors": [item]}
        return {"id": row.id, "success": True, "errors": [], "created": created}

    def delete_many(self, request: Request, _payload: Any) -> Response:
        """Up to 200 into the recycle bin."""
        results = []
        for record_id in request.query_params.get("ids", "").split(","):
            try:
                self.crm.delete(self._row(record_id).id)
                results.append({"id": record_id, "success": True, "errors": []})
            except SalesforceError as error:
                item = {"statusCode": error.code, "message": error.message, "fields": []}
                results.append({"id": record_id, "success": False, "errors": [item]})
        return json_answer(orjson.dumps(results))

    def _upsert(self, name: str, value: str, fields: dict[str, Any]) -> tuple[Row, bool]:
        if name != VENDOR.unique:
            raise SalesforceError(404, "NOT_FOUND", "Provided external ID field does not exist")
        known = self.crm.by_unique(value)
        if known is None:
            return self._create({**fields, name: value}), True
        return self._edit(known, fields), False

    def _create(self, fields: dict[str, Any]) -> Row:
        check(fields, creating=True)
        return self._changed(lambda: self.crm.create(**stored(fields)))

    def _edit(self, row: Row, fields: dict[str, Any]) -> Row:
        check(fields, creating=False)
        return self._changed(lambda: self.crm.edit(row.id, **stored(fields)))

    def _changed(self, change: Callable[[], dict[str, Any]]) -> Row:
        try:
            return self.crm.row(change()["id"])
        except RefusedError as refused:
            text = (
                f"duplicate value found: {VENDOR.unique} duplicates value on record with id: {refused.code}"
            )
            raise SalesforceError(400, "DUPLICATE_VALUE", text, (VENDOR.unique,)) from None

    # --- the org ---------------------------------------------------------------------

    def schema(self, _request: Request, _payload: Any) -> Response:
        """The object's fields."""
        return json_answer(orjson.dumps(describe(writable=not self.crm.options.read_only)))

    def limits(self, _request: Request, _payload: Any) -> Response:
        """What is left of the day."""
        most = self.crm.options.daily
        body = {"DailyApiRequests": {"Max": most, "Remaining": max(0, most - self.crm.used_today)}}
        return json_answer(orjson.dumps(body))


async def _payload(request: Request) -> Any:
    """What came with a request: JSON, or rows as they are."""
    if request.method == "PUT":
        return await request.body()
    return await json_body(request) if request.method in {"POST", "PATCH"} else None


def _refuse_double(key: Any, double: set[Any]) -> None:
    if key in double:
        raise SalesforceError(400, "DUPLICATE_VALUE", "duplicate external id specified")


def _time(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+")).astimezone(UTC)
    except ValueError:
        raise SalesforceError(400, "INVALID_FIELD", "start and end are needed") from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def create_app(crm: VendorCrm) -> ASGIApp:
    """Put an org on HTTP."""
    org = Salesforce(crm)
    contact, collections = f"{_ROOT}/sobjects/Contact", f"{_ROOT}/composite/sobjects"
    table: list[tuple[str, str, str, Callable[[Request, Any], Response]]] = [
        ("GET", f"{_ROOT}/query", "query", org.query),
        ("GET", f"{_ROOT}/query/", "query", org.query),
        ("GET", f"{_ROOT}/queryAll", "query", org.query),
        ("GET", f"{_ROOT}/queryAll/", "query", org.query),
        ("GET", f"{_ROOT}/query/{{locator}}", "query", org.more),
        ("GET", f"{_ROOT}/limits", "limits", org.limits),
        ("GET", contact, "recent", org.recent),
        ("POST", contact, "create", org.create),
        ("POST", f"{contact}/", "create", org.create),
        ("GET", f"{contact}/describe", "describe", org.schema),
        ("GET", f"{contact}/deleted/", "deleted", org.changed),
        ("GET", f"{contact}/updated/", "updated", org.changed),
        ("GET", f"{contact}/{{id}}", "read", org.read),
        ("PATCH", f"{contact}/{{id}}", "update", org.update),
        ("DELETE", f"{contact}/{{id}}", "delete", org.delete),
        ("PATCH", f"{contact}/{{field}}/{{value:path}}", "upsert", org.upsert),
        ("POST", collections, "collection_create", org.collection("create")),
        ("PATCH", collections, "collection_update", org.collection("update")),
        ("PATCH", f"{collections}/Contact/{{field}}", "collection_upsert", org.collection("upsert")),
        ("DELETE", collections, "collection_delete", org.delete_many),
        *org.jobs.table(f"{_ROOT}/jobs/ingest"),
    ]
    routes = [Route(path, org.guarded(kind, act), methods=[method]) for method, path, kind, act in table]
    routes += [
        Route("/services/data", versions, methods=["GET"]),
        Route("/services/data/", versions, methods=["GET"]),
        Route("/services/oauth2/token", token_route(crm), methods=["POST"]),
        *control_routes(crm),
    ]
    return FaultLayer(Starlette(routes=routes), crm, _kind, _plain_error)


async def versions(_request: Request) -> Response:
    """Versions of the API, told without a token."""
    listed = [{"label": "Summer '26", "url": "/services/data/v67.0", "version": "67.0"}]
    return json_answer(orjson.dumps(listed))


def token_route(crm: VendorCrm) -> Handler:
    """OAuth: a token that does not say when it ends, and the instance it is for."""

    async def handle(request: Request) -> Response:
        form = await form_of(request)
        if "assertion" in form:
            form = {"client_id": crm.options.client_id, "client_secret": crm.options.client_secret}
        wrong = crm.tokens.refuses(form)
        if wrong:
            error = "invalid_client_id" if wrong == "client_id" else "invalid_client"
            error = "invalid_grant" if wrong == "refresh_token" else error
            told = {"error": error, "error_description": f"{wrong} is not valid"}
            return json_answer(orjson.dumps(told), 400)
        body = {
            "access_token": crm.tokens.issue(),
            "instance_url": str(request.base_url).rstrip("/"),
            "id": f"{request.base_url}id/00Dxx/005xx",
            "token_type": "Bearer",
            "issued_at": str(
                int((crm.clock() - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))
            ),
            "signature": "c2ltdWxhdGVk",
        }
        return json_answer(orjson.dumps(body))

    return handle


def _kind(scope: Scope) -> CallKind | None:
    path = scope["path"]
    if not path.startswith("/services/data/v"):
        return None
    if scope["method"] != "GET":
        return "write"
    return "list" if "/query" in path else "read"


def _plain_error(code: str, message: str) -> list[dict[str, Any]]:
    word = "REQUEST_LIMIT_EXCEEDED" if code == "rate_limited" else "UNKNOWN_EXCEPTION"
    return [{"message": message, "errorCode": word}]
