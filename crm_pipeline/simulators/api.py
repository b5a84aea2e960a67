"""The requests a generic CRM's clients make: listing, reading and writing contacts."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from crm_pipeline.simulators import paging
from crm_pipeline.simulators.answers import Handler, error_body, json_answer, json_body, object_of
from crm_pipeline.simulators.crm import GenericCrm, LoggedWrite, RefusedError, check_fields

REMEMBERED_KEYS = 10_000
"""How many idempotency keys are kept, oldest dropped first."""
BATCH_KEY = "records"
JSON_API = "jsonapi"


class Api:
    """Handlers over one CRM. They run on the server's event loop and never wait for anything but bytes."""

    def __init__(self, crm: GenericCrm) -> None:
        """Serve this CRM."""
        self._crm = crm
        self._answers: OrderedDict[tuple[str, str], Response] = OrderedDict()
        self._wrap = crm.options.wrap or ("data" if crm.options.envelope == JSON_API else "")

    def allow(self, request: Request) -> None:
        """Refuse a request without the right key."""
        expected = f"Bearer {self._crm.options.api_key}".encode()
        if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), expected):
            raise RefusedError(401, "unauthorized", "A valid API key is needed.")

    async def listing(self, request: Request) -> Response:
        """One page, or the contacts that hold one unique value."""
        crm = self._crm
        query = paging.parse_query(request.query_params, crm.options)
        wanted = request.query_params.get(crm.options.unique)
        with crm.lock:
            if wanted is None:
                crm.calls["list"] += 1
                selection = crm.select(query.since, query.before)
                page = paging.cut_page(query, selection, stuck=crm.faults.repeated_cursor)
            else:
                crm.calls["lookup"] += 1
                found = crm.lookup(wanted)
                page = paging.PageOfRows(found, {"total": len(found)}, None)
            texts = [_shaped(crm.raw(row), query.envelope) for row in page.rows]
        link = self._next_link(request, query, page)
        return json_answer(paging.body(query, page, texts, link), headers=paging.headers(query, page, link))

    async def read(self, request: Request) -> Response:
        """One contact."""
        crm = self._crm
        with crm.lock:
            crm.calls["read"] += 1
            raw = crm.raw(crm.row(request.path_params["id"]))
        return json_answer(self._single(raw))

    async def create(self, request: Request) -> Response:
        """A new contact."""
        payload = await json_body(request)
        return self._written(request, "create", payload, lambda: self._create(self._unwrapped(payload)), 201)

    async def update(self, request: Request) -> Response:
        """Some attributes of a contact (PATCH), or all of them (PUT)."""
        payload = await json_body(request)
        change = self._crm.replace if request.method == "PUT" else self._crm.edit

        def act() -> bytes:
            fields = self._unwrapped(payload)
            check_fields(fields)
            return self._single(orjson.dumps(change(request.path_params["id"], **fields)))

        return self._written(request, "update", payload, act, 200)

    async def delete(self, request: Request) -> Response:
        """A contact less."""

        def act() -> bytes:
            self._crm.delete(request.path_params["id"])
            return b""

        return self._written(request, "delete", None, act, 204)

    async def batch(self, request: Request) -> Response:
        """Many contacts changed or created, each with its own result."""
        payload = await json_body(request)
        return self._written(request, "batch", payload, lambda: self._batch(payload), 200)

    def once(self, handler: Handler) -> Handler:
        """Where the CRM honours idempotency keys, repeat the first good answer given to one."""

        async def handle(request: Request) -> Response:
            key = request.headers.get("Idempotency-Key")
            if not key or not self._crm.options.idempotency:
                return await handler(request)
            place = (request.url.path, key)
            if place not in self._answers:
                self._answers[place] = await handler(request)
                if len(self._answers) > REMEMBERED_KEYS:
                    self._answers.popitem(last=False)
            return self._answers[place]

        return handle

    def _written(
        self,
        request: Request,
        kind: str,
        payload: Any,
        act: Callable[[], bytes],
        status: int,
    ) -> Response:
        """Do one write and log it, refused or not."""
        crm, seen = self._crm, status
        with crm.lock:
            crm.calls[kind] += 1
            try:
                content = act()
            except RefusedError as refused:
                seen = refused.status
                raise
            finally:
                record_id = request.path_params.get("id")
                crm.log.append(LoggedWrite(request.method, kind, record_id, payload, seen, crm.now()))
        return json_answer(content, status)

    def _create(self, fields: dict[str, Any]) -> bytes:
        check_fields(fields)
        return self._single(orjson.dumps(self._crm.create(**fields)))

    def _batch(self, payload: Any) -> bytes:
        items = payload.get(BATCH_KEY) if isinstance(payload, dict) else payload
        if not isinstance(items, list):
            raise RefusedError(422, "invalid_value", f"A list is needed, bare or under {BATCH_KEY!r}.")
        limit = self._crm.options.batch_limit
        if len(items) > limit:
            raise RefusedError(400, "batch_too_large", f"A batch takes up to {limit} contacts.")
        return orjson.dumps({"results": [self._batch_item(item) for item in items]})

    def _batch_item(self, item: Any) -> dict[str, Any]:
        record_id: str | None = None
        try:
            fields = _attributes(item)
            record_id = fields.get("id")
            check_fields(fields)
            if record_id is None:
                status, record = 201, self._crm.create(**fields)
            else:
                status, record = 200, self._crm.edit(str(record_id), **_without_id(fields))
        except RefusedError as refused:
            return {"status": refused.status, "id": record_id, **error_body(refused.code, refused.message)}
        text = _shaped(orjson.dumps(record), self._crm.options.envelope)
        return {"status": status, "id": record["id"], "record": orjson.Fragment(text)}

    def _single(self, raw: bytes) -> bytes:
        text = _shaped(raw, self._crm.options.envelope)
        return orjson.dumps({self._wrap: orjson.Fragment(text)}) if self._wrap else text

    def _unwrapped(self, payload: Any) -> dict[str, Any]:
        if self._wrap:
            payload = object_of(payload).get(self._wrap)
        return _without_id(_attributes(payload))

    def _next_link(self, request: Request, query: paging.ListQuery, page: paging.PageOfRows) -> str | None:
        if page.next_cursor is None:
            return None
        base = str(request.url.replace(query=""))
        if self._crm.faults.foreign_next_link:
            base = self._crm.faults.foreign_next_link + request.url.path
        elif self._crm.options.relative_links:
            base = request.url.path
        return paging.next_url(base, query, page.next_cursor)


def _shaped(raw: bytes, envelope: str) -> bytes:
    """One record as the envelope wants it; a broken record that is no object stays as it is."""
    if envelope != JSON_API:
        return raw
    record = orjson.loads(raw)
    if not isinstance(record, dict):
        return raw
    return orjson.dumps({"type": "contacts", "id": record["id"], "attributes": _without_id(record)})


def _attributes(value: Any) -> dict[str, Any]:
    """Attributes of a record in a request, in the guide's flat form or in JSON:API's."""
    record = object_of(value)
    if isinstance(record.get("attributes"), dict):
        return {**record["attributes"], **({"id": record["id"]} if "id" in record else {})}
    return record


def _without_id(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "id"}
