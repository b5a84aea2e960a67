"""Credentials put on a prepared request, and checked before any is sent."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import requests
from requests.auth import AuthBase

from crm_pipeline.connection import Auth
from crm_pipeline.connectors.base import ConnectorSetupError

_KEY = "EXTERNAL_CRM_API_KEY"


class HeaderAuth(AuthBase):
    """A credential in one header. Shows nothing of it."""

    def __init__(self, header: str, value: str) -> None:
        """Take the header's name and whole value, both checked before."""
        self._header, self._value = header, value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put it on."""
        request.headers[self._header] = self._value
        return request


class QueryAuth(AuthBase):
    """A credential in a query parameter; never twice, and only on the wire."""

    def __init__(self, param: str, key: str) -> None:
        """Take the parameter's name and value."""
        self._param, self._key = param, key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put it on, in place of one that a next link repeats."""
        bare = without_param(str(request.url), self._param)
        request.prepare_url(bare, {self._param: self._key})
        return request


def make_auth(auth: Auth, api_key: str | None) -> AuthBase | None:
    """Build the credential of a connection; None where it has nothing to prove.

    Raises:
        ConnectorSetupError: there is no key where one is needed, or it cannot travel the
            configured way. The text never holds the key.
    """
    if auth.kind == "none":
        return None
    if not api_key:
        raise ConnectorSetupError(f"{_KEY} is not set, and the connection's auth ({auth.kind}) needs it")
    key = _checked(api_key)
    makers: dict[str, Callable[[], AuthBase]] = {
        "bearer": lambda: _header("Authorization", f"Bearer {key}"),
        "header": lambda: _header(auth.header, auth.template.replace("{api_key}", key)),
        "basic": lambda: _basic(auth.username, key),
        "query": lambda: QueryAuth(auth.param, key),
    }
    return makers[auth.kind]()


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers of the connection file that can be sent.

    Raises:
        ConnectorSetupError: one cannot; its name is said, its value is not.
    """
    for name, value in headers.items():
        if not _fits_header(value):
            raise ConnectorSetupError(f"headers.{name}: the value cannot stand in an HTTP header")
    return dict(headers)


def without_param(url: str, param: str) -> str:
    """Return the URL without one query parameter, so that no key is kept with a next link."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    kept = [pair for pair in pairs if pair[0] != param]
    return url if len(kept) == len(pairs) else urlunsplit(parts._replace(query=urlencode(kept)))


def _checked(key: str) -> str:
    if key != key.strip() or not key.isprintable():
        raise ConnectorSetupError(
            f"{_KEY} begins or ends with a blank, or holds a line break or another control character"
        )
    return key


def _header(name: str, value: str) -> HeaderAuth:
    if not _fits_header(value):
        raise ConnectorSetupError(
            f"{_KEY} (with auth.template) holds characters that cannot stand in an HTTP header"
        )
    return HeaderAuth(name, value)


def _basic(username: str, key: str) -> HeaderAuth:
    if ":" in username or not username.isprintable():
        raise ConnectorSetupError("auth.username must not hold a colon or control characters")
    token = base64.b64encode(f"{username}:{key}".encode()).decode()  # UTF-8, as RFC 7617 advises
    return HeaderAuth("Authorization", f"Basic {token}")


def _fits_header(value: str) -> bool:
    if value != value.strip() or not value.isprintable():
        return False
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True
