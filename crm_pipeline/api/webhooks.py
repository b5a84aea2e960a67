"""Webhooks: from a request to what lands, once it has proved who sends it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request

from crm_pipeline.api.auth import Secrets
from crm_pipeline.api.bodies import Document
from crm_pipeline.api.problems import Problem, unauthorized
from crm_pipeline.api.signatures import Message, Proof, SecretFormError, verifier
from crm_pipeline.connectors.documents import dig
from crm_pipeline.settings import Settings, SettingsError
from crm_pipeline.sync.events import Arrival

LONGEST_ID = 255
_ID = re.compile(rf"[!-~]{{1,{LONGEST_ID}}}")
_ID_HEADERS = ("webhook-id", "idempotency-key")


class Door:
    """Lets webhooks in: by the secret in their body, or by the signature over it."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        """Take the connection's scheme and the secrets; ``clock`` tells seconds since the epoch.

        Raises:
            SettingsError: webhooks are signed, and there is no usable secret.
        """
        self._webhook = settings.connection.webhook
        self._id_path = self._webhook.id or settings.connection.records.id[0]
        self._secrets = Secrets(settings.external_crm_webhook_secret)
        self._open = not settings.api_auth_enabled and not self._secrets
        self._clock = clock
        self._verify = None
        if self._webhook.signature is not None:
            if not self._secrets:
                raise SettingsError(
                    "EXTERNAL_CRM_WEBHOOK_SECRET is needed: the connection's webhooks are signed"
                )
            keys = [secret.get_secret_value() for secret in settings.external_crm_webhook_secret]
            try:
                self._verify = verifier(self._webhook.signature, keys)
            except SecretFormError as error:
                raise SettingsError(str(error)) from None

    @property
    def signed(self) -> bool:
        """Whether webhooks are signed: they prove themselves, without an API key."""
        return self._verify is not None

    def check_signature(self, request: Request, body: bytes) -> Proof:
        """Hold the raw body against its signature, where webhooks are signed.

        Raises:
            Problem: it is wrong, stale or missing (401).
        """
        if self._verify is None:
            return Proof()
        message = Message(request.method, self._url(request), request.scope["headers"], body)
        proof = self._verify(message, self._clock())
        if proof is None:
            raise unauthorized()
        return proof

    def open(self, document: Document) -> tuple[list[dict[str, Any]], bool]:
        """The objects of a body, without their secret, and whether they came as a list.

        Raises:
            Problem: the body is neither an object nor a list of them (400), a secret is wrong
                (401), a text cannot be stored (422), or webhooks are not set up (503).
        """
        if not (self._verify or self._secrets or self._open):
            raise Problem(503, "Webhooks are not set up: EXTERNAL_CRM_WEBHOOK_SECRET is not set.")
        outer = _objects(document.value)
        right = [self._take_secret(each) for each in outer]
        if not all(right):
            raise unauthorized()
        if not document.storable:
            raise Problem(422, "A text holds a character that cannot be stored.")
        if self._webhook.records is None:
            return outer, isinstance(document.value, list)
        inner = [dig(each, self._webhook.records) for each in outer]
        found = [record for each in inner for record in _objects(self._named(each))]
        for record in found:
            record.pop(self._webhook.secret, None)
        return found, isinstance(document.value, list) or any(isinstance(each, list) for each in inner)

    def arrivals(
        self,
        request: Request,
        proof: Proof,
        objects: Sequence[dict[str, Any]],
        *,
        listed: bool,
        request_id: str,
    ) -> list[Arrival]:
        """Name the events: by what each says itself, or else by the request's headers.

        Raises:
            Problem: a name is too long or holds odd characters (400).
        """
        named = _checked(proof.event_id) or _header_id(request)
        return [
            Arrival(each, self._own_id(each) or _numbered(named, number if listed else None), request_id)
            for number, each in enumerate(objects)
        ]

    def _take_secret(self, found: dict[str, Any]) -> bool:
        secret = found.pop(self._webhook.secret, None)
        return self._open or self._verify is not None or self._secrets.match_value(secret)

    def _named(self, value: Any) -> Any:
        """Records that are told by their ids alone, as objects that hold nothing else."""
        items = value if isinstance(value, list) else [value]
        named = items and all(isinstance(each, str | int) and not isinstance(each, bool) for each in items)
        return [{self._id_path: each} for each in items] if named else value

    def _own_id(self, found: dict[str, Any]) -> str | None:
        if self._webhook.event_id is None:
            return None
        own = dig(found, self._webhook.event_id)
        usable = isinstance(own, str | int) and not isinstance(own, bool)
        return _checked(str(own)) if usable else None

    def _url(self, request: Request) -> str:
        """The address as the sender knows it."""
        signature = self._webhook.signature
        base = signature.public_url if signature is not None else None
        if base is None:
            host = request.headers.get("host", "")
            base = f"{request.scope['scheme']}://{host}{request.scope['raw_path'].decode('latin-1')}"
        query = request.scope["query_string"].decode("latin-1")
        return f"{base}?{query}" if query else base


def _objects(value: Any) -> list[dict[str, Any]]:
    found = value if isinstance(value, list) else [value]
    if not found or not all(isinstance(each, dict) for each in found):
        raise Problem(400, "The body must be an object, or a list of objects.")
    return found


def _header_id(request: Request) -> str | None:
    for name in _ID_HEADERS:
        found = request.headers.getlist(name)
        if len(found) > 1:
            raise _bad_id()
        if found:
            return _checked(found[0])
    return None


def _checked(name: str | None) -> str | None:
    if name is not None and not _ID.fullmatch(name):
        raise _bad_id()
    return name


def _bad_id() -> Problem:
    return Problem(400, f"An event's id must be 1 to {LONGEST_ID} printable ASCII characters, given once.")


def _numbered(name: str | None, number: int | None) -> str | None:
    return name if name is None or number is None else f"{name}/{number}"
