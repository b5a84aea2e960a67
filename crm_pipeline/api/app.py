"""The application: the gate, what is behind it, and the settings under which it is safe to serve."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager

from starlette.routing import Route as Match
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from crm_pipeline.api.auth import Secrets
from crm_pipeline.api.gate import Endpoint, Gate
from crm_pipeline.api.landing import Group
from crm_pipeline.api.limits import Limiter, shared_storage
from crm_pipeline.api.logs import Log
from crm_pipeline.api.routes import ROUTES, WEBHOOK, Api, Land, Route
from crm_pipeline.api.short import ShortWay
from crm_pipeline.api.whole import Whole
from crm_pipeline.service import ExternalCrmService
from crm_pipeline.settings import Settings, SettingsError, SyncMode, WebhookApply


class App:
    """The application as a server takes it."""

    def __init__(self, gate: Gate, whole: Mapping[tuple[str, str], Whole]) -> None:
        """``gate`` answers everything; ``whole`` has shorter ways, by method and path."""
        self._gate = gate
        self.whole = whole
        self.refused = gate.refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await self._gate(scope, receive, send)


def create_app(
    service: ExternalCrmService,
    log: Log,
    *,
    limiter: Limiter | None = None,
    land: Land | None = None,
) -> App:
    """Make the application.

    Args:
        service: what it serves; closed by whoever opened it.
        log: one line for each request and failure.
        limiter: counts requests; made from the settings when not given.
        land: lands webhooks; the service does, in a thread, when not given.

    Raises:
        SettingsError: it cannot be served safely with these settings.
    """
    require_safe(service.settings)
    api = Api(service, log, land or Group(service.receive, "landing"))
    keys = Secrets(service.settings.require_api_keys())
    if limiter is None and service.settings.rate_limit_enabled:
        limiter = _limiter(service.settings, log)
    endpoints = [Endpoint(route, api, keys, limiter) for route in ROUTES]
    router = Router(
        [_match(route, endpoint) for route, endpoint in zip(ROUTES, endpoints, strict=True)],
        redirect_slashes=False,
        lifespan=lambda _: _lifespan(api),
    )
    plain = dict(_plain(endpoints))
    gate = Gate(router, plain, api, limiter)
    # Elsewhere counted, or applied at once, there is more to wait for.
    waits = (limiter is not None and not limiter.alone) or service.settings.webhook_apply is WebhookApply.NOW
    hook = ("POST", WEBHOOK)
    return App(gate, {} if waits else {hook: ShortWay(gate, plain[hook], api, limiter)})


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


def doubts(settings: Settings) -> Iterator[str]:
    """What the settings allow and should be told of."""
    if not settings.api_auth_enabled:
        yield "API_AUTH_ENABLED IS FALSE: everybody who reaches this address can read and write"
    for name in ("crm_api_key", "external_crm_webhook_secret"):
        if any(len(each) < _SHORTEST for each in getattr(settings, name)):
            yield f"{name.upper()} HOLDS FEWER THAN {_SHORTEST} CHARACTERS: it can be guessed"


_SHORTEST = 16
"""Characters of a secret that nobody guesses, if they were chosen at random."""


def _limiter(settings: Settings, log: Log) -> Limiter:
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


def _plain(endpoints: Iterable[Endpoint]) -> Iterator[tuple[tuple[str, str], Endpoint]]:
    """Endpoints whose address is all there is to match, by method and path."""
    for endpoint in endpoints:
        if "{" not in endpoint.route.path:
            for method in endpoint.route.methods:
                yield (method, endpoint.route.path), endpoint


def _match(route: Route, endpoint: Endpoint) -> Match:
    match = Match(route.path, endpoint, methods=list(route.methods), name=route.name)
    match.methods = set(route.methods)  # Starlette lets HEAD in wherever GET is, and fetching has effects
    return match
