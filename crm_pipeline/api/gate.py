"""The gate: every request is named, let in or refused, answered, counted and logged here."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crm_pipeline.api.addresses import client_address, identity, within
from crm_pipeline.api.auth import Secrets
from crm_pipeline.api.headers import by_name
from crm_pipeline.api.limits import Limiter
from crm_pipeline.api.logs import Pseudonyms
from crm_pipeline.api.problems import Problem, passing, problem_of, unauthorized
from crm_pipeline.api.routes import ROUTES, Api, Route, Visit
from crm_pipeline.ids import new_id
from crm_pipeline.logs import place_of

CLIENT_GONE = 499
"""In logs and figures: the other end did not wait for an answer."""
_VISIT = "crm_pipeline.visit"
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})
_SERVER_ERROR = 500


class Endpoint:
    """One route, behind its key."""

    def __init__(self, route: Route, api: Api, keys: Secrets, limiter: Limiter | None) -> None:
        """``limiter`` counts the keys' requests."""
        self.route = route
        self._api = api
        self._keys = keys
        self._limiter = limiter
        self._key_optional = route.name == "webhook" and not api.door.needs_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        visit: Visit = scope[_VISIT]
        self.recognise(visit)
        if self._limiter is not None and visit.key is not None:
            await self._limiter.count("key", visit.key)
        self.require_on()
        response = await self.route.handler(self._api, Request(scope, receive), visit)
        await response(scope, receive, send)

    def recognise(self, visit: Visit) -> None:
        """Find out whose key it brings.

        Raises:
            Problem: nobody's (401).
        """
        visit.route = self.route.path
        if self.route.public or not self._keys:
            return
        presented = visit.headers.get("x-api-key", ())
        if self._key_optional and not presented:
            return  # what is sent proves who sends it
        visit.key = self._keys.match_one(presented)
        if visit.key is None:
            raise unauthorized()

    def require_on(self) -> None:
        """Serve while the integration is on.

        Raises:
            Problem: it is off (503).
        """
        if not (self.route.while_disabled or self._api.settings.external_crm_enabled):
            raise Problem(503, "The integration is switched off: EXTERNAL_CRM_ENABLED is false.")


class Gate:
    """Around everything: addresses, limits, headers, errors, the log."""

    def __init__(
        self, app: ASGIApp, plain: Mapping[tuple[str, str], ASGIApp], api: Api, limiter: Limiter | None
    ) -> None:
        """``plain`` by method and path: a look instead of a search, for those that are asked most."""
        self._app = app
        self._plain = plain
        self._api = api
        self._limiter = limiter
        self._public = {route.path for route in ROUTES if route.public}
        settings = api.settings
        self._allowed, self._trusted = settings.allowed_ips, settings.trusted_proxies
        key = "".join(key.get_secret_value() for key in settings.crm_api_key)
        self._names = Pseudonyms(key.encode() or secrets.token_bytes())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        scope["app"] = self  # Starlette's router then raises its refusals instead of answering them
        visit = scope[_VISIT] = Visit(new_id(), by_name(scope["headers"]))

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                message["headers"] = [*message["headers"], *own_headers(visit)]
            await send(message)

        failure: dict[str, str] = {}
        try:
            await self._admit(scope, visit)
            app = self._plain.get((scope["method"], scope["path"]), self._app)
            await app(scope, receive, send_on)
        except ClientDisconnect:
            visit.status = visit.status or CLIENT_GONE  # or it was too slow, and was told so
        except asyncio.CancelledError:  # the server ends, and has waited long enough
            if not visit.status:
                await passing(503, "The server is stopping.").response(scope, receive, send_on)
        except Exception as error:
            if visit.status:  # an answer was begun: nothing can be put right
                raise
            response, failure = refusal(error)
            await response(scope, receive, send_on)
        finally:
            self.note(scope["method"], visit, failure, time.perf_counter() - started)

    async def _admit(self, scope: Scope, visit: Visit) -> None:
        if scope["path"] in self._public:
            return
        self.recognise(scope, visit)
        if self._limiter is not None:
            await self._limiter.count("address", visit.caller)

    def recognise(self, scope: Scope, visit: Visit) -> None:
        """Find out which address it comes from.

        Raises:
            Problem: one that may not (403).
        """
        client = scope.get("client")
        forwarded = visit.headers.get("x-forwarded-for", ())
        address = client_address(client[0] if client else None, forwarded, self._trusted)
        visit.caller = identity(address)
        if self._allowed and not within(address, self._allowed):
            raise Problem(403, "Requests from this address are not allowed.")

    def refused(self, address: str, scope: Scope | None, status: int) -> tuple[tuple[bytes, bytes], ...]:
        """Take note of what was refused on the wire, by itself or while it was worked on; its headers."""
        visit: Visit | None = scope.get(_VISIT) if scope is not None else None
        if visit is not None:
            visit.status = status
        else:
            visit = Visit(new_id(), {}, identity(client_address(address, (), ())), status=status)
            self.note("other", visit, {}, 0.0)
        return own_headers(visit)

    def note(self, method: str, visit: Visit, failure: Mapping[str, str], seconds: float) -> None:
        """Count and log a request that has been answered."""
        known = method if method in _METHODS else "other"
        self._api.metrics.request(visit.route or "none", known, visit.status, seconds)
        line: dict[str, Any] = {
            "request_id": visit.request_id,
            "method": known,
            "route": visit.route or None,
            "status": visit.status,
            "ms": round(seconds * 1000, 2),
            "caller": self._names.of(visit.caller) if visit.caller else None,
            "key": visit.key,
        }
        if visit.subject is not None:
            line["subject"] = self._names.of(visit.subject)
        if failure:
            self._api.log.error("request", **line, **failure)
        else:
            self._api.log.info("request", **line)


def own_headers(visit: Visit) -> tuple[tuple[bytes, bytes], ...]:
    """Headers of every answer."""
    return (*_HEADERS, (b"x-request-id", visit.request_id.encode()))


def refusal(error: Exception) -> tuple[Response, dict[str, str]]:
    """The answer to a failure, and what the log tells of one that is not the caller's fault."""
    problem = problem_of(error)
    response = problem.response
    if problem.status < _SERVER_ERROR:
        return response, {}
    failure = {"detail": problem.detail, "error": type(error).__name__}
    return response, failure | {"at": place_of(error)} if problem.status == _SERVER_ERROR else failure
