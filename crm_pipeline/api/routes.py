"""Routes: every endpoint in one table; each handler reads, calls, answers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import orjson
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from crm_pipeline.api import bodies, openapi
from crm_pipeline.api.headers import Headers
from crm_pipeline.api.landing import Group, Queue
from crm_pipeline.api.logs import Log
from crm_pipeline.api.metrics import Metrics
from crm_pipeline.api.problems import REJECTED, Problem, passing
from crm_pipeline.api.runs import Dagster, Fetcher
from crm_pipeline.api.threads import aside, in_thread
from crm_pipeline.api.webhooks import Delivery, Door
from crm_pipeline.connectors.base import ConnectorError
from crm_pipeline.service import ExternalCrmService
from crm_pipeline.settings import WebhookApply
from crm_pipeline.store.engine import reading
from crm_pipeline.sync.errors import SyncError
from crm_pipeline.sync.reception import Arrival, Receipt

ANSWER_SECONDS = 4.0
"""How long an answer waits for its webhook to be stored, and to be applied; CRMs give up after 5 seconds."""
APPLY_LEASE_SECONDS = 1.0
"""How long applying waits for another run before it leaves the webhooks to the sensor."""
WEBHOOK = "/api/external/webhook"
_CONTACT_ID = re.compile("[ -~]{1,128}")
_CALLS_AT_ONCE = 8
"""Calls of the service in threads at once, in each lane, beside those that land webhooks."""
Lane: TypeAlias = Literal["database", "crm"]
"""What a call waits for. Those that wait for the CRM, or for their turn with it, keep no other waiting."""


@dataclass(slots=True)
class Visit:
    """What is known of the request in hand, for the log and for what lands."""

    request_id: str
    headers: Headers
    caller: str = ""
    """The address as it is counted."""
    route: str = ""
    key: str | None = None
    subject: str | None = None
    """Whom it is about: a contact or an event."""
    status: int = 0


Land: TypeAlias = Queue[Arrival, Receipt]


class Api:
    """What the handlers work with."""

    def __init__(self, service: ExternalCrmService, log: Log, land: Land) -> None:
        """Serve this service; webhooks wait in ``land`` until they have landed."""
        self.service = service
        self.settings = service.settings
        self.log = log
        self.metrics = Metrics()
        self.door = Door(service.settings)
        self.bodies = bodies.BodyReader()
        self.dagster = Dagster()
        self.fetcher = Fetcher(service, self.dagster)
        self.land = land
        self.apply: Group[str, dict[str, Any] | None] = Group(self._apply, "applying")
        self._lanes = {lane: asyncio.Semaphore(_CALLS_AT_ONCE) for lane in get_args(Lane)}

    async def call(self, work: Callable[[], Any], name: str, lane: Lane) -> Any:
        """Call the service in a thread."""
        async with self._lanes[lane]:
            return await in_thread(work, name)

    def in_dagster(self, work: Callable[[], object]) -> None:
        """Do something in Dagster that no answer waits for, where there is one."""

        def failed(error: Exception) -> None:
            self.log.error("Dagster cannot be used", error=type(error).__name__)

        if self.dagster.configured:
            aside(work, "dagster", failed)

    def look_for_daemon(self, age: float | None) -> None:
        """Where it is not known whether the daemon lives, know it next time: opening Dagster takes long."""
        if age is None:
            self.in_dagster(self.dagster.instance)

    def close(self) -> None:
        """Stop, after the transactions that are under way."""
        self.fetcher.abandon()
        self.land.close()
        self.apply.close()
        self.dagster.close()

    def _apply(self, event_ids: list[str]) -> list[dict[str, Any] | None]:
        """Apply what has landed, as far as it can be now, and say what became of these."""
        try:
            self.service.apply_events(wait_seconds=APPLY_LEASE_SECONDS)
        except (SyncError, ConnectorError) as error:
            self.log.warning("webhooks are left to the sensor", error=type(error).__name__)
        return [self.service.event(event_id) for event_id in event_ids]


Handler: TypeAlias = Callable[[Api, Request, Visit], Awaitable[Response]]


async def webhook(api: Api, request: Request, visit: Visit) -> Response:
    """Land events; the answer comes when they are durable."""
    bodies_read = api.bodies.read(visit.headers, request.receive, visit.caller, api.door.media_type)
    async with bodies_read as body:
        delivery = api.door.take(request.scope, visit.headers, body, visit.request_id)
        began = time.monotonic()
        try:
            receipts = await api.land(delivery.arrivals, ANSWER_SECONDS)
        except TimeoutError:
            raise too_slow() from None
    results = told(api, receipts)
    if api.settings.webhook_apply is WebhookApply.NOW:
        await _apply_now(api, results, ANSWER_SECONDS - (time.monotonic() - began))
    return acknowledged(api, delivery, results)


def told(api: Api, receipts: Sequence[Receipt]) -> list[dict[str, Any]]:
    """Count what has landed, and tell what became of it."""
    api.metrics.events(receipt.action for receipt in receipts)
    return [_result(receipt) for receipt in receipts]


def acknowledged(api: Api, delivery: Delivery, results: list[dict[str, Any]]) -> Response:
    """The answer to a webhook.

    Raises:
        Problem: a single event cannot become a contact, or its name is another's (422).
    """
    if api.door.acknowledgement is not None:
        return Response(api.door.acknowledgement, media_type=api.door.media_type)
    if not delivery.listed:
        return _single(results[0])
    return _json({"success": all(result["success"] for result in results), "results": results})


def too_slow() -> Problem:
    """It may be stored yet: sent again under its name, it is the same event."""
    return passing(503, "The database does not answer in time.")


async def event(api: Api, request: Request, visit: Visit) -> Response:
    """Tell what became of an event."""
    event_id = visit.subject = request.path_params["event_id"]
    found = None
    if event_id.isprintable():
        found = await api.call(lambda: api.service.event(event_id), "event", "database")
    if found is None:
        raise Problem(404, "No event of this id has been received.")
    return _json(found)


async def fetch(api: Api, request: Request, visit: Visit) -> Response:
    """Pull now."""
    del request
    return _json(await api.fetcher.fetch(visit.request_id))


async def push(api: Api, request: Request, visit: Visit) -> Response:
    """Write one contact to the CRM."""
    contact_id = visit.subject = request.path_params["contact_id"]
    if not _CONTACT_ID.fullmatch(contact_id):
        raise Problem(422, "This cannot be the id of a contact.")
    pushed = await api.call(lambda: api.service.push_to_external_crm(contact_id), "push", "crm")
    api.in_dagster(lambda: api.dagster.note_push(pushed["action"]))
    return _json(pushed)


async def status(api: Api, request: Request, visit: Visit) -> Response:
    """Tell how the sync stands."""
    del request, visit
    return _json(await api.call(api.service.get_status, "status", "database"))


async def healthz(api: Api, request: Request, visit: Visit) -> Response:
    """Tell that the process answers."""
    del api, request, visit
    return _json({"status": "ok"})


async def readyz(api: Api, request: Request, visit: Visit) -> Response:
    """Tell whether requests can be served: whether the database answers."""
    del request, visit

    def look() -> float | None:
        with reading(api.service.engine) as tx:
            tx.execute(sa.select(1))
        return api.dagster.heartbeat_age()

    age = await api.call(look, "readiness", "database")
    api.look_for_daemon(age)
    return _json({"status": "ready", "daemonHeartbeatSeconds": age})


async def metrics(api: Api, request: Request, visit: Visit) -> Response:
    """Tell Prometheus."""
    del request, visit

    def look() -> tuple[dict[str, Any], float | None]:
        return api.service.get_status(), api.dagster.heartbeat_age()

    found, age = await api.call(look, "metrics", "database")
    api.look_for_daemon(age)
    text, media_type = api.metrics.text(found, age)
    return Response(text, headers={"Content-Type": media_type})


async def describe(api: Api, request: Request, visit: Visit) -> Response:
    """Describe the API."""
    del request, visit
    return _json(
        openapi.document(ROUTES, api.settings.connection.webhook, keyed=bool(api.settings.require_api_keys()))
    )


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table."""

    path: str
    methods: tuple[str, ...]
    handler: Handler
    summary: str
    answer: str
    """Name of the answer's schema; empty for plain text."""
    refusals: tuple[int, ...]
    """Statuses of its errors."""
    body: str = ""
    """Name of the schema of its body."""
    headers: tuple[str, ...] = ()
    parameter: str = ".+"
    """What its path's parameter may be, as a pattern."""
    public: bool = False
    """Answers anybody, and is not counted."""
    while_disabled: bool = False
    """Answers even while EXTERNAL_CRM_ENABLED is false."""
    media_type: str = "application/json"

    @property
    def name(self) -> str:
        """Its handler's name."""
        return self.handler.__name__


_WIRE = (400, 408, 414, 431, 503)
"""What a connection's bounds refuse, whatever is asked for."""
_GUARD = (401, 403, 429, 500)


def _refusals(*own: int) -> tuple[int, ...]:
    """Those of a route that asks for the key, and its own."""
    return tuple(sorted({*own, *_GUARD, *_WIRE}))


ROUTES: tuple[Route, ...] = (
    Route(
        WEBHOOK,
        ("POST",),
        webhook,
        "Receive a webhook: durable when it is answered",
        "WebhookAnswer",
        _refusals(413, 415, 422),
        body="WebhookBody",
        headers=("webhook-id", "Idempotency-Key"),
    ),
    Route(
        "/api/external/webhook/{event_id:path}",
        ("GET", "HEAD"),
        event,
        "What became of a webhook",
        "Event",
        _refusals(404),
    ),
    Route(
        "/api/external/fetch",
        ("GET", "POST"),
        fetch,
        "Pull from the CRM now, as a Dagster run, and wait for it",
        "Fetched",
        _refusals(409, 502),
    ),
    Route(
        "/api/external/push/{contact_id}",
        ("POST",),
        push,
        "Write one contact to the CRM now",
        "Pushed",
        _refusals(404, 409, 422, 502),
        parameter=_CONTACT_ID.pattern,
    ),
    Route(
        "/api/external/status",
        ("GET", "HEAD"),
        status,
        "How the sync stands",
        "Status",
        _refusals(),
        while_disabled=True,
    ),
    Route(
        "/healthz",
        ("GET", "HEAD"),
        healthz,
        "Whether the process answers",
        "Health",
        _WIRE,
        public=True,
        while_disabled=True,
    ),
    Route(
        "/readyz",
        ("GET", "HEAD"),
        readyz,
        "Whether the database answers",
        "Health",
        _refusals(),
        while_disabled=True,
    ),
    Route(
        "/metrics",
        ("GET", "HEAD"),
        metrics,
        "Figures for Prometheus",
        "",
        _refusals(),
        media_type="text/plain",
    ),
    Route("/openapi.json", ("GET", "HEAD"), describe, "This document", "OpenApi", _refusals()),
)


async def _apply_now(api: Api, results: list[dict[str, Any]], seconds: float) -> None:
    """Have landed events applied, and put what became of them into their results."""
    landed = [result for result in results if result["status"] == "landed"]
    if not landed:
        return
    try:
        found = await api.apply(list({result["eventId"] for result in landed}), seconds)
    except Exception as error:  # noqa: BLE001 - it is durable, and the sensor will see to it
        api.log.warning("webhooks are left to the sensor", error=type(error).__name__)
        return
    ends = {became["eventId"]: became for became in found if became is not None}
    for result in landed:
        became = ends.get(result["eventId"])
        if became is None:
            continue
        result |= {"status": became["status"], "userId": became["userId"] or result["userId"]}
        if became["status"] == "applied":
            result |= {"success": True, "action": became["action"]}
            result.pop("reasons", None)  # of an earlier attempt
        elif became["status"] == "rejected":
            result |= {"success": False, "action": "rejected", "reasons": became["reasons"]}


def _result(receipt: Receipt) -> dict[str, Any]:
    result: dict[str, Any] = {
        "success": receipt.action not in {"rejected", "conflict"},
        "userId": receipt.user_id,
        "action": receipt.action,
        "eventId": receipt.event_id,
        "status": receipt.status,
    }
    if receipt.reasons:
        result["reasons"] = receipt.reasons
    return result


def _single(result: dict[str, Any]) -> Response:
    if result["success"]:
        return _json(result)
    if result["action"] == "conflict":
        raise Problem(422, "This event's id came before, with another body.", eventId=result["eventId"])
    raise Problem(422, REJECTED, eventId=result["eventId"], reasons=result["reasons"])


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
