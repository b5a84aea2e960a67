"""Credentials: what of a request nobody may read again, and whether an answer repeats it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

import orjson
import requests

from crm_pipeline.connectors.reasons import leaves

_PLAIN = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent"}
)
"""Headers that hold none."""
NO_SECRETS = frozenset({"grant_type", "scope"})
"""Of a form that asks for a token."""
_SHORTEST = 6
"""Characters; what is shorter stands in any answer by chance."""


def repeats_credentials(body: bytes, request: requests.PreparedRequest) -> bool:
    """Tell whether an error's body quotes a header, a form or a query of the request it answers."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False  # nothing is read out of it
    texts = [text.casefold() for _, text in leaves(told) if isinstance(text, str)]
    secrets = {each.casefold() for each in _sent(request) if len(each) >= _SHORTEST}
    return any(secret in text for secret in secrets for text in texts)


def _sent(request: requests.PreparedRequest) -> Iterator[str]:
    for name, value in request.headers.items():
        if name.lower() not in _PLAIN:
            for word in str(value).split():
                yield word
                yield from _decoded(word).split(":", 1)
    yield from (value for _, value in parse_qsl(urlsplit(str(request.url)).query))
    if "form" in str(request.headers.get("Content-Type")) and isinstance(request.body, bytes):
        form = parse_qsl(request.body.decode("utf-8", "replace"))
        yield from (value for name, value in form if name not in NO_SECRETS)


def _decoded(word: str) -> str:
    """User and password of Basic authentication."""
    try:
        return base64.b64decode(word, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
