"""The application: every request is named, let in or refused, answered, counted and logged here."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route as Match
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crm_pipeline.api.addresses import client_address, identity, within
from crm_pipeline.api.auth import Secrets
from crm_pipeline.api.limits import Limiter, shared_storage
from crm_pipeline.api.logs import Pseudonyms
from crm_pipeline.api.problems import Problem, passing, problem_of, unauthorized
from crm_pipeline.api.routes import ROUTES, Api, Land, Route, Visit
from crm_pipeline.logs import place_of
from crm_pipeline.service import ExternalCrmService
from crm_pipeline.settings import Settings, SettingsError, SyncMode

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
_ID_BYTES = 16


def create_app(
    service: ExternalCrmService,
    log: structlog.typing.FilteringBoundLogger,
    *,
    limiter: Limiter | None = None,
    land: Land | None = None,
) -> ASGIApp:
    """Make the application.

    Args:
        service: what it serves; closed by whoever opened it.
        log: one line for each request and failure.
        limiter: counts requests; made from the settings when not given.
        land: lands webhooks; the service does when not given.

    Raises:
        SettingsError: it cannot be served safely with these settings.
    """
    require_safe(service.settings)
    api = Api(service, log, land or service.receive)
    keys = Secrets(service.settings.require_api_keys())
    if limiter is None and service.settings.rate_limit_enabled:
        limiter = _limiter(service.settings, log)
    endpoints = [_Endpoint(route, api, keys, limiter) for route in ROUTES]
    router = Router(
        [_match(route, endpoint) for route, endpoint in zip(ROUTES, endpoints, strict=True)],
        redirect_slashes=False,
        lifespan=lambda _: _lifespan(api),
    )
    return _Gate(router, dict(_plain(endpoints)), api, limiter)


def require_safe(settings: Settings) -> None:
    """Refuse settings under which somebody could get in who should not.

    Raises:
        SettingsError: a key or a secret is missing.
    """
    settings.require_api_keys()
    expected = settings.external_crm_enabled and settings.external_crm_sync_mode is SyncMode.WEBHOOK
    if expected and settings.api_auth_enabled and not settings.external_crm_webhook_secret:
        raise SettingsError(
            "EXTERNAL_CRM_WEBHOOK_SECRET is needed while EXTERNAL_CRM_SYNC_MODE is webhook "
            "and API_AUTH_ENABLED is true"
        )


def _limiter(settings: Settings, log: structlog.typing.FilteringBoundLogger) -> Limiter:
    url = settings.rate_limit_storage
    try:
        shared = shared_storage(url.get_secret_value()) if url is not None else None
    except ValueError as error:
        raise SettingsError(str(error)) from None
    return Limiter(settings.rate_limit, shared=shared, log=log)


@asynccontextmanager
async def _lifespan(api: Api) -> AsyncIterator[None]:
    yield
    api.close()


def _plain(endpoints: Iterable[_Endpoint]) -> Iterator[tuple[tuple[str, str], _Endpoint]]:
    """Endpoints whose address is all there is to match, by method and path."""
    for endpoint in endpoints:
        if "{" not in endpoint.route.path:
            for method in endpoint.route.methods:
                yield (method, endpoint.route.path), endpoint


def _match(route: Route, endpoint: _Endpoint) -> Match:
    match = Match(route.path, endpoint, methods=list(route.methods), name=route.name)
    match.methods = set(route.methods)  # Starlette lets HEAD in wherever GET is, and fetching has effects
    return match


class _Endpoint:
    """One route, behind its key."""

    def __init__(self, route: Route, api: Api, keys: Secrets, limiter: Limiter | None) -> None:
        self.route = route
        self._api = api
        self._keys = keys
        self._limiter = limiter
        self._key_optional = route.name == "webhook" and not api.door.needs_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        visit: Visit = scope[_VISIT]
        visit.route = self.route.path
        if not self.route.public:
            await self._admit(scope, visit)
        if not (self.route.while_disabled or self._api.settings.external_crm_enabled):
            raise Problem(503, "The integration is switched off: EXTERNAL_CRM_ENABLED is false.")
        response = await self.route.handler(self._api, Request(scope, receive), visit)
        await response(scope, receive, send)

    async def _admit(self, scope: Scope, visit: Visit) -> None:
        if not self._keys:
            return
        presented = [value for name, value in scope["headers"] if name == b"x-api-key"]
        if self._key_optional and not presented:
            return  # what is sent proves who sends it
        visit.key = self._keys.match_one(presented)
        if visit.key is None:
            raise unauthorized()
        if self._limiter is not None:
            await self._limiter.count("key", visit.key)


class _Gate:
    """Around everything: addresses, limits, headers, errors, the log."""

    def __init__(
        self, app: ASGIApp, plain: Mapping[tuple[str, str], ASGIApp], api: Api, limiter: Limiter | None
    ) -> None:
        self._app = app
        self._plain = plain  # a look instead of a search, for those that are asked most
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
        visit = scope[_VISIT] = Visit(secrets.token_hex(_ID_BYTES), "")

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                name = (b"x-request-id", visit.request_id.encode())
                message["headers"] = [*message["headers"], *_HEADERS, name]
            await send(message)

        failure: dict[str, str] = {}
        try:
            await self._admit(scope, visit)
            app = self._plain.get((scope["method"], scope["path"]), self._app)
            await app(scope, receive, send_on)
        except ClientDisconnect:
            visit.status = CLIENT_GONE
        except asyncio.CancelledError:  # the server ends, and has waited long enough
            if not visit.status:
                await passing(503, "The server is stopping.").response(scope, receive, send_on)
        except Exception as error:
            if visit.status:  # an answer was begun: nothing can be put right
                raise
            problem = problem_of(error)
            failure = _failure(error, problem)
            await problem.response(scope, receive, send_on)
        finally:
            self._note(scope["method"], visit, failure, time.perf_counter() - started)

    async def _admit(self, scope: Scope, visit: Visit) -> None:
        if scope["path"] in self._public:
            return
        forwarded = (value for name, value in scope["headers"] if name == b"x-forwarded-for")
        client = scope.get("client")
        address = client_address(client[0] if client else None, forwarded, self._trusted)
        visit.caller = identity(address)
        if self._allowed and not within(address, self._allowed):
            raise Problem(403, "Requests from this address are not allowed.")
        if self._limiter is not None:
            await self._limiter.count("address", visit.caller)

    def _note(self, method: str, visit: Visit, failure: dict[str, str], seconds: float) -> None:
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


def _failure(error: Exception, problem: Problem) -> dict[str, str]:
    """What the log tells of an answer that is not the caller's fault."""
    if problem.status < _SERVER_ERROR:
        return {}
    told = {"detail": problem.detail, "error": type(error).__name__}
    return told | {"at": place_of(error)} if problem.status == _SERVER_ERROR else told
