"""HTTP answers the simulators have in common: JSON bodies, errors, and the reading of requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from crm_pipeline.simulators.crm import RefusedError

Handler = Callable[[Request], Awaitable[Response]]

MAX_BODY = 32 * 1024 * 1024


def json_answer(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON text as an answer."""
    return Response(content, status, dict(headers or {}), "application/json")


def error_body(code: str, message: str) -> dict[str, Any]:
    """What every error says."""
    return {"error": {"code": code, "message": message}}


def guarded(allow: Callable[[Request], None], handler: Handler) -> Handler:
    """Let a request through ``allow`` first, and answer refusals as JSON errors."""

    async def handle(request: Request) -> Response:
        try:
            allow(request)
            return await handler(request)
        except RefusedError as refused:
            headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else {}  # noqa: PLR2004
            return json_answer(
                orjson.dumps(error_body(refused.code, refused.message)), refused.status, headers
            )

    return handle


async def json_body(request: Request) -> Any:
    """The request's JSON. Raises ``RefusedError``: 413 too large, 400 not JSON, or not all of it."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise RefusedError(413, "too_large", "The body is too large.")
    except ClientDisconnect as error:
        raise RefusedError(400, "bad_request", "The body broke off.") from error
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, "bad_request", "The body is not JSON.") from error


async def form_of(request: Request) -> dict[str, str]:
    """A form, in the body or the query."""
    body = (await request.body()).decode("utf-8", "replace")
    return dict([*request.query_params.items(), *parse_qsl(body, keep_blank_values=True)])


def object_of(value: Any) -> dict[str, Any]:
    """The value as an object. Raises ``RefusedError`` (422) when it is not one."""
    if not isinstance(value, dict):
        raise RefusedError(422, "invalid_value", "A JSON object is needed here.")
    return value
