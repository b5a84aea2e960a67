"""OAuth2 access tokens: asked for, kept, and renewed by one process for all.

The requests are RFC 6749's client credentials and refresh token, and RFC 7523's JWT bearer.
What the vendors add: Salesforce tells no ``expires_in`` and names the instance in
``instance_url``; Zoho names it in ``api_domain``, answers errors with status 200, and its old
installations tell seconds in ``expires_in_sec`` beside milliseconds in ``expires_in``.
"""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

import orjson
import requests
from requests.auth import AuthBase

from crm_pipeline.checked import check_crm_url
from crm_pipeline.connection import OAuth
from crm_pipeline.connectors.base import AccessRefusedError, ConnectorError, ConnectorSetupError
from crm_pipeline.connectors.credentials import NO_SECRETS
from crm_pipeline.connectors.reasons import is_code
from crm_pipeline.connectors.repeats import NotSentError

EARLY, EARLY_SHARE = timedelta(seconds=60), 0.1
"""A token is renewed so long before it ends, or by this share of its life."""
_JWT_LIFE = timedelta(seconds=170)
"""Salesforce takes assertions that end within three minutes."""
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_OK = 200
_THROTTLED = "too many requests"
_LONGEST_LIFE = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Token:
    """An access token."""

    value: str = field(repr=False)
    expires_at: datetime | None = None
    """When a new one is due; None where the CRM tells no end: then a 401 does."""
    base: str | None = None
    """The API's own address, where the answer names it."""
    refresh_token: str | None = field(default=None, repr=False)
    """The newest one, where the CRM changes it."""


class TokenShelf(Protocol):
    """Where an account's token is kept."""

    def load(self) -> Token | None:
        """The newest token."""

    def save(self, token: Token) -> None:
        """Keep a token in place of the one before."""

    def alone(self) -> AbstractContextManager[None]:
        """Let one at a time ask for a new token.

        Raises:
            ConnectorError: another one asks, and does not come to an end.
        """


class MemoryShelf:
    """Keeps a token as long as the process lives."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._token: Token | None = None
        self._lock = threading.Lock()

    def load(self) -> Token | None:
        """The newest token."""
        return self._token

    def save(self, token: Token) -> None:
        """Keep a token."""
        self._token = token

    @contextlib.contextmanager
    def alone(self) -> Any:
        """One thread at a time."""
        with self._lock:
            yield


class Answered(Protocol):
    """What is needed of an answer of the token address."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def body(self) -> bytes:
        """Its body."""


Ask = Callable[[str, bytes, Mapping[str, str]], Answered]
"""Posts a form to a URL with headers."""


class Tokens(AuthBase):
    """The account's tokens, put on requests as the CRM wants them."""

    def __init__(
        self,
        oauth: OAuth,
        scheme: str,
        token_url: str,
        ask: Ask,
        shelf: TokenShelf,
        clock: Callable[[], datetime],
    ) -> None:
        """Ask for nothing yet."""
        self._oauth, self._scheme, self._url = oauth, scheme, token_url
        self._ask, self._shelf, self._clock = ask, shelf, clock

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the present token on a request."""
        request.headers["Authorization"] = f"{self._scheme} {self.current().value}"
        return request

    def current(self) -> Token:
        """A token that is good as far as can be told.

        Raises:
            ConnectorError: there is none to be had.
        """
        token = self._shelf.load()
        return token if token is not None and self._lasts(token) else self._renewed(token)

    def base(self) -> str | None:
        """Where the CRM says its API is. Once there has been a token it can be told without a new one.

        Raises:
            ConnectorError: there has been none, and there is none to be had.
        """
        return (self._shelf.load() or self.current()).base

    def renewed_after(self, used: str) -> None:
        """See to it that the token that was refused (its header) is not used again.

        Raises:
            ConnectorError: there is no other to be had.
        """
        token = self._shelf.load()
        if token is None or f"{self._scheme} {token.value}" == used:
            self._renewed(token)

    def _renewed(self, old: Token | None) -> Token:
        with self._shelf.alone():
            now = self._shelf.load()
            if now is not None and now != old and self._lasts(now):
                return now  # somebody else was faster
            token = self._asked(now or old)
            self._shelf.save(token)
            return token

    def _lasts(self, token: Token) -> bool:
        return token.expires_at is None or self._clock() < token.expires_at

    def _asked(self, old: Token | None) -> Token:
        now, oauth = self._clock(), self._oauth
        refresh = (old.refresh_token if old else None) or _shown(oauth.refresh_token)
        form = {"grant_type": oauth.grant, **self._client()}
        if oauth.scope:
            form["scope"] = oauth.scope
        if oauth.grant == "refresh_token":
            form["refresh_token"] = refresh or ""
        elif oauth.grant == "jwt_bearer":
            form = {"grant_type": _JWT_GRANT, "assertion": _assertion(oauth, self._url, now)}
        answer = self._ask(self._url, urlencode(form).encode(), self._headers())
        sent = [value for name, value in form.items() if name not in NO_SECRETS]
        sent.append(_shown(oauth.client_secret) or "")
        return _token(answer, now, refresh if oauth.grant == "refresh_token" else None, sent)

    def _client(self) -> dict[str, str]:
        if self._oauth.client_auth == "basic":
            return {}
        secret = _shown(self._oauth.client_secret)
        return {"client_id": self._oauth.client_id, **({"client_secret": secret} if secret else {})}

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if self._oauth.client_auth == "basic":
            pair = f"{self._oauth.client_id}:{_shown(self._oauth.client_secret) or ''}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return headers


class TokenRefusedError(AccessRefusedError):
    """The token address gives us none."""


class TokenThrottledError(NotSentError):
    """Too many tokens were asked for; those that are there go on working."""


def _shown(secret: Any) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _token(answer: Answered, now: datetime, refresh: str | None, sent: Sequence[str]) -> Token:
    try:
        told = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        told = None
    told = told if isinstance(told, dict) else {}
    value = told.get("access_token")
    if answer.status != _OK or not isinstance(value, str) or not _fits_header(value):
        raise _refused(answer.status, told, sent)
    new = told.get("refresh_token")
    return Token(
        value,
        _ends(told, now),
        _base(told.get("instance_url") or told.get("api_domain")),
        new if isinstance(new, str) and new else refresh,
    )


def _base(told: Any) -> str | None:
    """The API's address: the token goes there, so it must be one that a connection could name."""
    if not isinstance(told, str) or not told:
        return None
    try:
        return check_crm_url(told.rstrip("/"))
    except ValueError:
        raise TokenRefusedError(
            "the token is for an address that is not used: no https, or no plain one"
        ) from None


def _ends(told: Mapping[str, Any], now: datetime) -> datetime | None:
    seconds = told.get("expires_in_sec", told.get("expires_in"))
    try:
        life = timedelta(seconds=float(seconds)) if seconds is not None else None
    except (TypeError, ValueError, OverflowError):
        return None
    if life is None or life <= timedelta(0):  # no life at all would mean a new token for every call
        return None
    life = min(life, _LONGEST_LIFE)
    return now + life - min(EARLY, life * EARLY_SHARE)


def _refused(status: int, told: Mapping[str, Any], sent: Sequence[str]) -> ConnectorError:
    """Say why, in the standard's words; texts of a CRM may quote what was ``sent``."""
    if _THROTTLED in str(told.get("error_description", "")).lower() or status in {429, 503}:
        return TokenThrottledError("the CRM gives no new token now: too many were asked for")
    said = [str(code) for code in (told.get("error"), told.get("status")) if is_code(code)]
    codes = [code for code in said if not any(secret and secret in code for secret in sent)]
    answer = f"{status}: {codes[0]}" if codes else str(status)
    return TokenRefusedError(f"the CRM gives no access token (status {answer}); see auth.oauth")


def _fits_header(value: str) -> bool:
    return value.isascii() and value.isprintable() and value == value.strip() and bool(value)


def _assertion(oauth: OAuth, token_url: str, now: datetime) -> str:
    """Sign a JWT (RS256) that asks for a token in a user's name."""
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - heavy, only here
    from cryptography.hazmat.primitives.asymmetric import padding, rsa  # noqa: PLC0415

    parts = urlsplit(token_url)
    claims = {
        "iss": oauth.client_id,
        "sub": oauth.username,
        "aud": oauth.audience or f"{parts.scheme}://{parts.netloc}",
        "exp": int((now + _JWT_LIFE).timestamp()),
    }
    head = _base64url(orjson.dumps({"alg": "RS256", "typ": "JWT"}))
    signed = f"{head}.{_base64url(orjson.dumps(claims))}"
    try:
        key = serialization.load_pem_private_key((_shown(oauth.private_key) or "").encode(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ConnectorSetupError("auth.oauth.private_key is not an RSA key in PEM form without a password")
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{_base64url(signature)}"


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
