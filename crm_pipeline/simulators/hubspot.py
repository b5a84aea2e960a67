"""HubSpot's contacts over HTTP, as far as a sync needs them (v3 and dated paths).

Every value is a text or null; only properties that are asked for come; the list goes by record
id and the search by what its index has caught up with, 10,000 results deep; batches answer 207
with their good and their bad rows apart, in no order; a rolling ten-second window is kept.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
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
from crm_pipeline.simulators.hubspot_rules import (
    ALWAYS,
    DEFAULTS,
    KNOWN,
    LIST_MAX,
    VENDOR,
    HubSpotError,
    check,
    error_item,
    inputs_of,
    multi,
    names_of,
    page_of,
    properties_of,
    row_error,
    schema,
    stored,
    text_of,
    throttled,
    time_text,
    whole,
)
from crm_pipeline.simulators.hubspot_search import SearchError, search
from crm_pipeline.simulators.shelf import Row
from crm_pipeline.simulators.vendor import Removed, VendorCrm, Window

_PREFIX = "/crm/{version:path}/contacts"
_VERSIONED = re.compile(r"v3/objects|objects/20[0-9]{2}-[0-9]{2}")


_READS = frozenset({"list", "search", "read", "batch_read", "properties"})


class HubSpot:
    """Handlers over one account."""

    def __init__(self, crm: VendorCrm) -> None:
        """Serve this account."""
        self.crm = crm
        self._searches = Window(crm.options.searches, 1.0)
        self._random = random.Random(1)

    def guarded(self, kind: str, act: Callable[[Request, Any], Response], *, search: bool = False) -> Handler:
        """Check version, token and rate; then act, and word what is refused."""

        async def handle(request: Request) -> Response:
            try:
                payload = await json_body(request) if request.method in {"POST", "PATCH"} else None
                with self.crm.lock:
                    self._admit(request, search=search)
                    self._allow(kind)
                    self.crm.calls[kind] += 1
                    answer = act(request, payload)
            except HubSpotError as error:
                answer = json_answer(orjson.dumps(error.body), error.status)
            except RefusedError as refused:
                body = HubSpotError(refused.status, "VALIDATION_ERROR", refused.message).body
                answer = json_answer(orjson.dumps(body), refused.status)
            if request.method != "GET":
                self.crm.logged(request.method, kind, payload, answer.status_code)
            if not search:
                answer.headers.update(self._rate_headers())
            return answer

        return handle

    def _admit(self, request: Request, *, search: bool) -> None:
        if not _VERSIONED.fullmatch(request.path_params["version"]):
            raise HubSpotError(404, "OBJECT_NOT_FOUND", "resource not found")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not self.crm.tokens.good(token):
            raise HubSpotError(401, "INVALID_AUTHENTICATION", "Authentication credentials not found.")
        crm = self.crm
        crm.used_today += 1
        if crm.used_today > crm.options.daily:
            raise throttled("DAILY", "You have reached your daily limit.")
        if not crm.burst.admits():
            raise throttled("TEN_SECONDLY_ROLLING", "You have reached your ten_secondly_rolling limit.")
        if search and not self._searches.admits():
            raise throttled("SECONDLY", "You have reached your secondly limit.")

    def _allow(self, kind: str) -> None:
        if self.crm.options.read_only and kind not in _READS:
            scopes = {"requiredGranularScopes": ["crm.objects.contacts.write"]}
            text = "This app hasn't been granted all required scopes."
            raise HubSpotError(403, "MISSING_SCOPES", text, errors=[{"context": scopes}])

    def _rate_headers(self) -> dict[str, str]:
        crm = self.crm
        return {
            "X-HubSpot-RateLimit-Max": str(crm.burst.limit),
            "X-HubSpot-RateLimit-Remaining": str(crm.burst.left),
            "X-HubSpot-RateLimit-Interval-Milliseconds": str(int(crm.burst.seconds * 1000)),
            "X-HubSpot-RateLimit-Daily": str(crm.options.daily),
            "X-HubSpot-RateLimit-Daily-Remaining": str(max(0, crm.options.daily - crm.used_today)),
        }

    # --- reading ---------------------------------------------------------------------

    def shown(self, row: Row, properties: list[str] | None, removed: Removed | None = None) -> dict[str, Any]:
        """A record as it goes out, with the properties that were asked for."""
        stored, created = self.crm.fields(row), row.record["created_at"]
        own = {
            "createdate": time_text(created),
            "lastmodifieddate": time_text(row.updated_at),
            "hs_object_id": row.id,
            "hs_merged_object_ids": self._merged(row.id),
        }
        names = [name for name in dict.fromkeys([*(properties or DEFAULTS), *ALWAYS]) if name in KNOWN]
        answer = {
            "id": row.id,
            "properties": {name: own.get(name) or text_of(stored.get(name)) for name in names},
            "createdAt": time_text(created),
            "updatedAt": time_text(row.updated_at),
            "archived": removed is not None,
        }
        return answer if removed is None else {**answer, "archivedAt": time_text(removed.at)}

    def _merged(self, record_id: str) -> str | None:
        merged = [old for old, removed in self.crm.removed.items() if removed.merged_into == record_id]
        return ";".join(merged) or None

    def listing(self, request: Request, _payload: Any) -> Response:
        """A page of the list, by record id."""
        query = request.query_params
        limit = whole(query.get("limit", "10"))
        if not 1 <= limit <= LIST_MAX:
            raise HubSpotError(400, "VALIDATION_ERROR", f"limit must be 1 to {LIST_MAX}")
        properties = names_of(query.getlist("properties"))
        after = whole(query.get("after", "0"))
        if query.get("archived", "false").lower() == "true":
            gone = [each for each in self.crm.removed.values() if each.merged_into is None]
            gone = sorted((each for each in gone if each.row.seq >= after), key=lambda each: each.row.seq)
            found = [self.shown(each.row, properties, each) for each in gone[:limit]]
            following = gone[limit].row.id if len(gone) > limit else None
        else:
            everything = self.crm.shelf.all()
            rows = everything.cut(everything.offset_after((after - 1,)), limit + 1)
            found = [self.shown(row, properties) for row in rows[:limit]]
            following = rows[limit].id if len(rows) > limit else None
        if self.crm.faults.repeated_cursor and following is not None and after:
            following = str(after)
        return page_of(request, found, following, self.crm.faults.foreign_next_link)

    def search(self, _request: Request, payload: Any) -> Response:
        """A page of a search, by offset."""
        try:
            rows, total, following = search(self.crm, object_of(payload))
        except SearchError as error:
            raise HubSpotError(400, "VALIDATION_ERROR", str(error)) from None
        properties = payload.get("properties") or None
        body: dict[str, Any] = {"total": total, "results": [self.shown(row, properties) for row in rows]}
        if following is not None:
            if self.crm.faults.repeated_cursor and payload.get("after") not in {None, "", "0", 0}:
                following = payload["after"]
            body["paging"] = {"next": {"after": str(following)}}
        return json_answer(orjson.dumps(body))

    def read(self, request: Request, _payload: Any) -> Response:
        """One record, by id or by another unique property; a merged one under its new id."""
        query = request.query_params
        archived = query.get("archived", "false").lower() == "true"
        name = request.path_params["id"]
        removed = self.crm.removed.get(name)
        if archived and removed is not None:
            return json_answer(
                orjson.dumps(self.shown(removed.row, names_of(query.getlist("properties")), removed))
            )
        row = self._found(name, query.get("idProperty"))
        return json_answer(orjson.dumps(self.shown(row, names_of(query.getlist("properties")))))

    def batch_read(self, _request: Request, payload: Any) -> Response:
        """Records by id or by a unique property."""
        inputs, found, missing = inputs_of(payload), {}, []
        for each in inputs:
            try:
                row = self._found(str(each.get("id")), payload.get("idProperty"))
                found[row.id] = self.shown(row, payload.get("properties") or None)
            except HubSpotError:
                missing.append(str(each.get("id")))
        errors = [error_item("OBJECT_NOT_FOUND", "Could not get some CONTACT objects", ids=missing)]
        return multi(list(found.values()), errors if missing else [])

    def _found(self, name: str, id_property: str | None) -> Row:
        if id_property not in {None, "hs_object_id"}:
            row = self.crm.by_unique(name) if id_property == VENDOR.unique else None
        else:
            removed = self.crm.removed.get(name)
            row = self.crm.shelf.by_id.get((removed.merged_into or name) if removed else name)
        if row is None:
            raise HubSpotError(404, "OBJECT_NOT_FOUND", "resource not found")
        return row

    # --- writing ---------------------------------------------------------------------

    def create(self, _request: Request, payload: Any) -> Response:
        """A new record."""
        row = self._create(properties_of(payload))
        return json_answer(orjson.dumps(self.shown(row, list(properties_of(payload)))), 201)

    def update(self, request: Request, payload: Any) -> Response:
        """Some properties of a record."""
        row = self._found(request.path_params["id"], request.query_params.get("idProperty"))
        row = self._edit(row, properties_of(payload))
        return json_answer(orjson.dumps(self.shown(row, list(properties_of(payload)))))

    def archive(self, request: Request, _payload: Any) -> Response:
        """Archive a record; one that is archived stays so."""
        if request.path_params["id"] in self.crm.shelf.by_id:
            self.crm.delete(request.path_params["id"])
        return Response(status_code=204)

    def batch_archive(self, _request: Request, payload: Any) -> Response:
        """Archive many."""
        for each in inputs_of(payload):
            if str(each.get("id")) in self.crm.shelf.by_id:
                self.crm.delete(str(each.get("id")))
        return Response(status_code=204)

    def merge(self, _request: Request, payload: Any) -> Response:
        """Merge two records: what remains is a record of a new id."""
        primary, other = str(payload.get("primaryObjectId")), str(payload.get("objectIdToMerge"))
        crm = self.crm
        fields = {**crm.fields(self._found(other, None)), **crm.fields(self._found(primary, None))}
        for each in (primary, other):
            crm.delete(each)
        made = crm.create(**fields)
        for each in (primary, other):
            old = crm.removed[each]
            crm.removed[each] = Removed(old.row, old.at, made["id"])
        return json_answer(orjson.dumps(self.shown(crm.row(made["id"]), None)))

    def batch(self, kind: str) -> Callable[[Request, Any], Response]:
        """Many records created, updated or upserted; each for itself where inputs carry traces."""

        def act(_request: Request, payload: Any) -> Response:
            inputs = inputs_of(payload)
            named = [str(each["id"]) for each in inputs if "id" in each]
            if len(set(named)) < len(named):
                raise HubSpotError(400, "VALIDATION_ERROR", "Duplicate IDs found in batch input")
            done, errors = [], []
            for each in inputs:
                try:
                    done.append(self._one(kind, each))
                except HubSpotError as error:
                    if "objectWriteTraceId" not in each and kind != "update":
                        raise
                    errors.append(row_error(error, each))
            self._random.shuffle(done)
            return multi(done, errors, 201 if kind == "create" else 200)

        return act

    def _one(self, kind: str, each: dict[str, Any]) -> dict[str, Any]:
        properties = properties_of(each)
        new = kind == "create"
        if kind == "create":
            row = self._create(properties)
        elif kind == "upsert":
            known = self.crm.by_unique(str(each.get("id")))
            new = known is None
            given = {**properties, str(each.get("idProperty")): str(each.get("id"))}
            row = self._create(given) if known is None else self._edit(known, properties)
        else:
            row = self._edit(self._found(str(each.get("id")), each.get("idProperty")), properties)
        answer = {**self.shown(row, list(properties)), "new": new}
        trace = each.get("objectWriteTraceId")
        return {**answer, "objectWriteTraceId": trace} if trace is not None else answer

    def _create(self, properties: dict[str, Any]) -> Row:
        check(properties)
        try:
            return self.crm.row(self.crm.create(**stored(properties))["id"])
        except RefusedError as refused:
            text = f"Contact already exists. Existing ID: {refused.code}"
            raise HubSpotError(409, "CONFLICT", text) from None

    def _edit(self, row: Row, properties: dict[str, Any]) -> Row:
        check(properties)
        try:
            self.crm.edit(row.id, **stored(properties))
        except RefusedError as refused:
            text = (
                f"Cannot set PropertyValueCoordinates{{}} on {row.id}. {refused.code} already has that value."
            )
            raise HubSpotError(400, "VALIDATION_ERROR", text) from None
        return self.crm.row(row.id)


def create_app(crm: VendorCrm) -> ASGIApp:
    """Put an account on HTTP."""
    hub = HubSpot(crm)
    one = f"{_PREFIX}/{{id}}"
    routes = [
        Route("/crm/{version:path}/properties/contacts", properties_route(hub), methods=["GET"]),
        Route("/crm/properties/{version}/contacts", properties_route(hub), methods=["GET"]),
        Route(_PREFIX, hub.guarded("list", hub.listing), methods=["GET"]),
        Route(_PREFIX, hub.guarded("create", hub.create), methods=["POST"]),
        Route(f"{_PREFIX}/search", hub.guarded("search", hub.search, search=True), methods=["POST"]),
        Route(f"{_PREFIX}/merge", hub.guarded("merge", hub.merge), methods=["POST"]),
        Route(f"{_PREFIX}/batch/read", hub.guarded("batch_read", hub.batch_read), methods=["POST"]),
        Route(f"{_PREFIX}/batch/archive", hub.guarded("batch_archive", hub.batch_archive), methods=["POST"]),
        *(
            Route(f"{_PREFIX}/batch/{kind}", hub.guarded(f"batch_{kind}", hub.batch(kind)), methods=["POST"])
            for kind in ("create", "update", "upsert")
        ),
        Route(one, hub.guarded("read", hub.read), methods=["GET"]),
        Route(one, hub.guarded("update", hub.update), methods=["PATCH"]),
        Route(one, hub.guarded("archive", hub.archive), methods=["DELETE"]),
        Route("/oauth/{version}/token", token_route(crm), methods=["POST"]),
        *control_routes(crm),
    ]
    return FaultLayer(Starlette(routes=routes), crm, _kind, _plain_error)


def properties_route(hub: HubSpot) -> Handler:
    """The schema of contacts."""

    async def handle(request: Request) -> Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hub.crm.tokens.good(token):
            body = HubSpotError(401, "INVALID_AUTHENTICATION", "Authentication credentials not found.").body
            return json_answer(orjson.dumps(body), 401)
        hub.crm.calls["properties"] += 1
        return json_answer(orjson.dumps({"results": [schema(name) for name in sorted(KNOWN)]}))

    return handle


def token_route(crm: VendorCrm) -> Handler:
    """OAuth: a refresh token gives an access token."""

    async def handle(request: Request) -> Response:
        wrong = crm.tokens.refuses(await form_of(request))
        if wrong:
            status = {"client_id": "BAD_CLIENT_ID", "client_secret": "BAD_CLIENT_SECRET"}.get(
                wrong, "BAD_REFRESH_TOKEN"
            )
            error = "invalid_client" if wrong.startswith("client") else "invalid_grant"
            refusal = {"status": status, "message": f"{wrong} is not valid", "error": error}
            return json_answer(orjson.dumps(refusal), 400)
        body = {
            "token_type": "bearer",
            "access_token": crm.tokens.issue(),
            "refresh_token": crm.options.refresh_token,
            "expires_in": int(crm.options.token_life),
            "token_use": "access_token",
        }
        return json_answer(orjson.dumps(body))

    return handle


def _kind(scope: Scope) -> CallKind | None:
    path = scope["path"]
    if not path.startswith("/crm/"):
        return None
    if path.endswith(("/contacts", "/search")) and (scope["method"] == "GET" or path.endswith("/search")):
        return "list"
    return "read" if scope["method"] == "GET" or path.endswith("/batch/read") else "write"


def _plain_error(code: str, message: str) -> dict[str, Any]:
    if code == "rate_limited":
        return throttled("TEN_SECONDLY_ROLLING", message).body
    return HubSpotError(500, "INTERNAL_ERROR", message).body
