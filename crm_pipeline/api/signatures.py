"""Signatures: whether a webhook's raw bytes were signed by somebody who has one of our secrets."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

from crm_pipeline.connection import Signature


@dataclass(frozen=True, slots=True)
class Message:
    """A webhook as it was received."""

    method: str
    url: str
    headers: Sequence[tuple[bytes, bytes]]
    """Names in lower case."""
    body: bytes

    def header(self, name: str) -> bytes | None:
        """A header's value; None unless it was sent exactly once."""
        wanted = name.lower().encode()
        found = [value for key, value in self.headers if key == wanted]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class Proof:
    """A signature was right."""

    event_id: str | None = None
    """The event's id, where it was signed as well."""
    once: str | None = None
    """A name for the message, where its time was signed and no id: what comes again under it is a replay."""


Verifier: TypeAlias = Callable[[Message, float], Proof | None]
"""Judges a message at a time (seconds since the epoch); None for a wrong, missing or stale signature."""


class SecretFormError(ValueError):
    """A secret cannot be a key of the scheme; the text does not hold it."""


def verifier(signature: Signature, secrets: Sequence[str]) -> Verifier:
    """How to judge messages of a scheme; any one of the secrets may have signed.

    Raises:
        SecretFormError: a secret is no key of the scheme.
    """
    if signature.scheme == "standard":
        return _standard(signature, [_standard_key(secret) for secret in secrets])
    keys = [secret.encode() for secret in secrets]
    match signature.scheme:
        case "hubspot":
            return _hubspot_v3(signature, keys)
        case "hubspot_v2":
            return _hubspot_old(signature, keys, b"v2")
        case "hubspot_v1":
            return _hubspot_old(signature, keys, b"v1")
        case "hmac":
            return _hmac(signature, keys)


# Standard Webhooks.

_MOST_SIGNATURES = 16


def _standard_key(secret: str) -> bytes:
    text = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    if not key:
        msg = "EXTERNAL_CRM_WEBHOOK_SECRET must be base64, with or without whsec_, to sign Standard Webhooks"
        raise SecretFormError(msg)
    return key


def _standard(signature: Signature, keys: Sequence[bytes]) -> Verifier:
    def verify(message: Message, now: float) -> Proof | None:
        for prefix in ("webhook", "svix"):
            name = message.header(f"{prefix}-id")
            time = message.header(f"{prefix}-timestamp")
            listed = message.header(f"{prefix}-signature")
            if name is None or time is None or listed is None:
                continue
            if not name or not _fresh(time, now, signature.tolerance_seconds):
                return None
            signed = b".".join((name, time, message.body))
            shown = [each for each in map(_standard_digest, listed.split(b" ")[:_MOST_SIGNATURES]) if each]
            right = _any_matches([hmac.digest(key, signed, "sha256") for key in keys], shown)
            return Proof(name.decode("latin-1")) if right else None
        return None

    return verify


def _standard_digest(item: bytes) -> bytes | None:
    """``v1,<base64>``; other versions, and what is no signature at all, are left out."""
    version, _, text = item.partition(b",")
    return _from_base64(text) if version == b"v1" else None


# HubSpot.

_DECODED = {f"%{ord(character):02X}": character for character in ":/?@!$'()*,;"}
_ESCAPE = re.compile("|".join(_DECODED), re.IGNORECASE)


def _hubspot_v3(signature: Signature, keys: Sequence[bytes]) -> Verifier:
    def verify(message: Message, now: float) -> Proof | None:
        time = message.header("x-hubspot-request-timestamp")
        shown = _from_base64(message.header("x-hubspot-signature-v3") or b"")
        if time is None or shown is None or not _fresh(time, now, signature.tolerance_seconds, unit=1000):
            return None
        url = _ESCAPE.sub(lambda match: unquote(match[0]), message.url)
        signed = b"".join((message.method.encode(), url.encode(), message.body, time))
        return _proof(
            _any_matches([hmac.digest(key, signed, "sha256") for key in keys], [shown]), dated=shown
        )

    return verify


def _hubspot_old(signature: Signature, keys: Sequence[bytes], version: bytes) -> Verifier:
    """Versions 1 and 2: no time is signed, so a message can be replayed for ever."""
    del signature

    def verify(message: Message, now: float) -> Proof | None:
        del now
        shown = _from_hex(message.header("x-hubspot-signature") or b"")
        if shown is None or message.header("x-hubspot-signature-version") != version:
            return None
        head = message.method.encode() + message.url.encode() if version == b"v2" else b""
        digests = [hashlib.sha256(key + head + message.body).digest() for key in keys]
        return _proof(_any_matches(digests, [shown]))

    return verify


# Any HMAC.

_PARTS = {
    "digest": rb"(?P<digest>[A-Za-z0-9+/=_-]+)",
    "timestamp": rb"(?P<timestamp>[0-9]+)",
    "id": rb"(?P<id>[!-~]+?)",
}
_DIGESTS = rb"(?P<digest>[A-Za-z0-9+/=_-]+(?:%s[A-Za-z0-9+/=_-]+){0,%d})"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def _hmac(signature: Signature, keys: Sequence[bytes]) -> Verifier:
    texts = _PLACEHOLDER.split(signature.value)
    *_, label, part, rest = (text.encode() for text in texts)
    # A list may end with several, while the sender changes its secret: t=…,v1=…,v1=….
    several = label.startswith(b",") and (part, rest) == (b"digest", b"")
    kinds = _PARTS | {"digest": _DIGESTS % (re.escape(label), _MOST_SIGNATURES - 1)} if several else _PARTS
    pattern = re.compile(
        b"".join(kinds[text] if place % 2 else re.escape(text.encode()) for place, text in enumerate(texts))
    )
    signed_parts = _PLACEHOLDER.split(signature.signed)
    dated, named = ("{timestamp}" in signature.signed), ("{id}" in signature.signed)
    decode = _from_hex if signature.encoding == "hex" else _from_base64
    unit = 1000 if signature.timestamp_unit == "milliseconds" else 1

    def verify(message: Message, now: float) -> Proof | None:
        said = message.header(signature.header) or b""
        sent = pattern.fullmatch((_from_base64(said) or b"") if signature.wrapped else said)
        if sent is None:
            return None
        found = sent.groupdict()
        parts = {
            "body": message.body,
            "method": message.method.encode(),
            "url": message.url.encode(),
            "timestamp": found.get("timestamp") or _named(message, signature.timestamp_header),
            "id": found.get("id") or _named(message, signature.id_header),
        }
        listed = found["digest"].split(label) if several else [found["digest"]]
        shown = [each for each in map(decode, listed) if each is not None]
        chosen = [parts[text] if place % 2 else text.encode() for place, text in enumerate(signed_parts)]
        pieces = [piece for piece in chosen if piece is not None]
        if len(pieces) < len(chosen):
            return None
        time = parts["timestamp"]
        if dated and not _fresh(time or b"", now, signature.tolerance_seconds, unit=unit):
            return None
        digests = [hmac.digest(key, b"".join(pieces), signature.algorithm) for key in keys]
        name = parts["id"] if named else None
        # Named by one key, whichever signed: a header with one signature fewer is the same message.
        return _proof(_any_matches(digests, shown), name, dated=digests[-1] if dated else None)

    return verify


# What they share.

_DIGITS = re.compile(rb"[0-9]{1,16}")


def _fresh(time: bytes, now: float, tolerance: int, *, unit: int = 1) -> bool:
    """Whether a time in so many parts of a second is near enough, before or after."""
    return _DIGITS.fullmatch(time) is not None and abs(now - int(time) / unit) <= tolerance


def _any_matches(own: Sequence[bytes], shown: Sequence[bytes]) -> bool:
    """Compare all with all, whichever fits."""
    found = [hmac.compare_digest(digest, each) for digest in own for each in shown]
    return any(found)


def _proof(
    right: bool,  # noqa: FBT001 - the verdict itself
    event_id: bytes | None = None,
    *,
    dated: bytes | None = None,
) -> Proof | None:
    """``dated`` is the signature over a time: it comes from the sender once."""
    if not right:
        return None
    if event_id:
        return Proof(event_id.decode("latin-1"))
    # Its digest: who reads the name of an event need not see a signature.
    return Proof(once=f"signed-{hashlib.sha256(dated).hexdigest()}" if dated is not None else None)


def _named(message: Message, header: str | None) -> bytes | None:
    return message.header(header) if header is not None else None


def _from_base64(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None


def _from_hex(text: bytes) -> bytes | None:
    try:
        return binascii.unhexlify(text)
    except ValueError:
        return None
