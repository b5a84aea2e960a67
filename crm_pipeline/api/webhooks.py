"""Webhooks: from a request to what lands, once it has proved who sends it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from starlette.datastructures import QueryParams
from starlette.types import Scope

from crm_pipeline.api import bodies, vendors
from crm_pipeline.api.auth import Secrets
from crm_pipeline.api.bodies import MAX_ITEMS
from crm_pipeline.api.headers import Headers
from crm_pipeline.api.problems import Problem, unauthorized
from crm_pipeline.api.signatures import Message, Proof, SecretFormError, verifier
from crm_pipeline.api.vendors import Told
from crm_pipeline.connectors.documents import dig
from crm_pipeline.settings import Settings, SettingsError, SyncMode
from crm_pipeline.sync.reception import Arrival


class Delivery(NamedTuple):
    """What one request brings."""

    arrivals: list[Arrival]
    listed: bool
    """Whether it is answered with a list."""


LONGEST_ID = 255
_ID = re.compile(rf"[!-~]{{1,{LONGEST_ID}}}")
_ID_HEADERS = ("webhook-id", "idempotency-key")
_UNSIGNED = Proof()
_ORGANIZATION = 15
"""Characters of an organisation's id that count; three more only check them."""
_READERS: Mapping[str, vendors.Reader] = {"hubspot": vendors.hubspot, "zoho": vendors.zoho}


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
        signed = self._webhook.signature is not None
        self._open = not settings.api_auth_enabled and not self._secrets and not signed
        self._clock = clock
        self._verify = None
        if signed and not self._secrets and settings.external_crm_sync_mode is SyncMode.WEBHOOK:
            raise SettingsError("EXTERNAL_CRM_WEBHOOK_SECRET is needed: the connection's webhooks are signed")
        if self._webhook.signature is not None and self._secrets:
            keys = [secret.get_secret_value() for secret in settings.external_crm_webhook_secret]
            try:
                self._verify = verifier(self._webhook.signature, keys)
            except SecretFormError as error:
                raise SettingsError(str(error)) from None

    @property
    def needs_key(self) -> bool:
        """Whether an API key is asked for. A signature does without, and vendors can send none."""
        return self._verify is None and self._webhook.format == "records"

    @property
    def media_type(self) -> str:
        """Of the bodies that are taken."""
        return "text/xml" if self._webhook.format == "salesforce" else "application/json"

    @property
    def acknowledgement(self) -> bytes | None:
        """What the vendor wants to hear, as XML; None where it takes our JSON."""
        return vendors.ACKNOWLEDGED if self._webhook.format == "salesforce" else None

    def take(self, scope: Scope, headers: Headers, body: bytes, request_id: str) -> Delivery:
        """What a request brings, proved and named.

        Raises:
            Problem: it proves nothing (401), is not what it should be (400), or webhooks are
                not set up (503).
        """
        proof = self._check_signature(scope, headers, body)
        if not (self._verify or self._secrets or self._open):
            raise Problem(503, "Webhooks are not set up: EXTERNAL_CRM_WEBHOOK_SECRET is not set.")
        told, listed = self._message(scope, body) if self.media_type == "text/xml" else self._objects(body)
        if len(told) > MAX_ITEMS:
            raise Problem(400, f"The body tells of more than {MAX_ITEMS} records.")
        named = _checked(proof.event_id) or _header_id(headers) or proof.once
        return Delivery(
            [
                Arrival(
                    each.payload,
                    each.event_id or _numbered(named, number if listed else None),
                    request_id,
                    each.record_id,
                    each.ours,
                    each.refused,
                )
                for number, each in enumerate(told)
            ],
            listed,
        )

    def _check_signature(self, scope: Scope, headers: Headers, body: bytes) -> Proof:
        if self._verify is None:
            return _UNSIGNED
        message = Message(scope["method"], self._url(scope, headers), scope["headers"], body)
        proof = self._verify(message, self._clock())
        if proof is None:
            raise unauthorized()
        return proof

    def _message(self, scope: Scope, body: bytes) -> tuple[list[Told], bool]:
        """An outbound message: its secret is in the address."""
        shown = QueryParams(scope["query_string"]).getlist(self._webhook.secret)
        if not (self._open or (len(shown) == 1 and self._secrets.match_value(shown[0]))):
            raise unauthorized()
        message = vendors.salesforce(body)
        expected = self._webhook.organization
        if expected is not None and message.organization[:_ORGANIZATION] != expected[:_ORGANIZATION]:
            raise unauthorized()
        return list(message.told), True

    def _objects(self, body: bytes) -> tuple[list[Told], bool]:
        """A JSON body, without its secret, and whether what it tells came as a list."""
        document = bodies.parse(body)
        outer = _objects(document.value)
        right = [self._take_secret(each) for each in outer]
        if not all(right):
            raise unauthorized()
        told, listed = self._told(document.value, outer)
        if not document.storable:
            told = [each._replace(refused=bodies.unstorable(each.payload)) for each in told]
        return told, listed

    def _told(self, value: Any, outer: list[dict[str, Any]]) -> tuple[list[Told], bool]:
        read = _READERS.get(self._webhook.format)
        if read is not None:
            return [told for each in outer for told in read(each)], True
        listed = isinstance(value, list)
        if self._webhook.records is None:
            return [Told(each, self._own_id(each)) for each in outer], listed
        inner = [dig(each, self._webhook.records) for each in outer]
        found = [record for each in inner for record in _objects(self._named(each))]
        for record in found:
            record.pop(self._webhook.secret, None)
        return [Told(each, self._own_id(each)) for each in found], listed or any(
            isinstance(each, list) for each in inner
        )

    def _named(self, value: Any) -> Any:
        """Records that are told by their ids alone, as objects that hold nothing else."""
        items = value if isinstance(value, list) else [value]
        named = items and all(isinstance(each, str | int) and not isinstance(each, bool) for each in items)
        return [{self._id_path: each} for each in items] if named else value

    def _take_secret(self, found: dict[str, Any]) -> bool:
        secret = found.pop(self._webhook.secret, None)
        return self._open or self._verify is not None or self._secrets.match_value(secret)

    def _own_id(self, found: dict[str, Any]) -> str | None:
        if self._webhook.event_id is None:
            return None
        own = dig(found, self._webhook.event_id)
        usable = isinstance(own, str | int) and not isinstance(own, bool)
        return _checked(str(own)) if usable else None

    def _url(self, scope: Scope, headers: Headers) -> str:
        """The address as the sender knows it."""
        signature = self._webhook.signature
        base = signature.public_url if signature is not None else None
        if base is None:
            host = headers.get("host", ("",))[0]
            base = f"{scope['scheme']}://{host}{scope['raw_path'].decode('latin-1')}"
        query = scope["query_string"].decode("latin-1")
        return f"{base}?{query}" if query else base


def _objects(value: Any) -> list[dict[str, Any]]:
    found = value if isinstance(value, list) else [value]
    if not found or not all(isinstance(each, dict) for each in found):
        raise Problem(400, "The body must be an object, or a list of objects.")
    return found


def _header_id(headers: Headers) -> str | None:
    for name in _ID_HEADERS:
        found = headers.get(name, ())
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
