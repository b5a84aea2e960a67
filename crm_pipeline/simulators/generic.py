"""A generic REST CRM over HTTP, as the integration guide describes one.

Every ``/api`` request needs ``Authorization: Bearer <api_key>``; errors are
``{"error": {"code", "message"}}``. In ``/api/contacts``:

- ``GET``: a page of contacts, oldest creation first (``paging`` has styles and parameters).
  ``updated_since`` (from) and ``updated_before`` (exclusive), ISO or epoch, restrict it and
  order it by change, oldest first, ties by id. ``phone`` finds by that exact value instead.
- ``GET /{id}``: the contact, or 404. ``POST``: 201 and the new contact.
- ``PATCH /{id}``, ``PUT /{id}``: 200 and the contact, some attributes changed or all replaced.
- ``DELETE /{id}``: 204.
- ``POST /batch``: ``{"records": [...]}`` or a bare array. An item with ``id`` changes that
  contact, one without creates one. Answers 200 with
  ``{"results": [{"status", "id", "record" | "error"}, …]}`` in the order sent.

Attributes the CRM does not know are kept as they are. ``/sim`` steers and watches it, without
a key and only from this machine:

- ``GET /sim/stats``: counts (``GenericCrm.stats``). ``GET /sim/log``: writes as received.
  ``GET /sim/broken``: ids handed out broken, and how.
- ``POST /sim/edit``: ``{"id", "fields"}`` changes, ``{"fields"}`` creates, ``{"id", "delete": true}``
  deletes, as a person in the CRM would.
- ``POST /sim/faults``: ``{"faults": ["rate_limit=10", …], "seed": 1}`` replaces all faults.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from crm_pipeline.simulators.answers import guarded
from crm_pipeline.simulators.api import Api
from crm_pipeline.simulators.control import control_routes
from crm_pipeline.simulators.crm import GenericCrm, LoggedWrite, RefusedError
from crm_pipeline.simulators.faultlayer import FaultLayer
from crm_pipeline.simulators.faults import CallKind, Faults
from crm_pipeline.simulators.options import CrmOptions
from crm_pipeline.simulators.rewrite import Rewrite

__all__ = [
    "CONTACTS_PATH",
    "CrmOptions",
    "Faults",
    "GenericCrm",
    "LoggedWrite",
    "RefusedError",
    "Rewrite",
    "create_app",
]

CONTACTS_PATH = "/api/contacts"
"""The list endpoint: a server's base URL and this make the API URL of a connection."""


def create_app(crm: GenericCrm) -> ASGIApp:
    """Put a CRM on HTTP. Serve it with ``serve.running``: cutting connections needs its protocol."""
    api = Api(crm)
    one = f"{CONTACTS_PATH}/{{id}}"
    routes = [
        Route(CONTACTS_PATH, guarded(api.allow, api.listing), methods=["GET"]),
        Route(CONTACTS_PATH, guarded(api.allow, api.once(api.create)), methods=["POST"]),
        Route(f"{CONTACTS_PATH}/batch", guarded(api.allow, api.once(api.batch)), methods=["POST"]),
        Route(one, guarded(api.allow, api.read), methods=["GET"]),
        Route(one, guarded(api.allow, api.update), methods=["PATCH", "PUT"]),
        Route(one, guarded(api.allow, api.delete), methods=["DELETE"]),
        *control_routes(crm),
    ]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        if crm.webhooks:
            crm.webhooks.start()
        yield
        if crm.webhooks:
            crm.webhooks.stop()

    return FaultLayer(Starlette(routes=routes, lifespan=lifespan), crm, _kind)


def _kind(scope: Scope) -> CallKind | None:
    """Only paths below ``/api/`` are spoilt."""
    if not scope["path"].startswith("/api/"):
        return None
    if scope["method"] != "GET":
        return "write"
    return "list" if scope["path"] == CONTACTS_PATH else "read"
