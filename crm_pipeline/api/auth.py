"""Who may call: API keys and webhook secrets, compared without telling by time where they differ."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence

from pydantic import SecretStr

_FINGERPRINT = 8


class Secrets:
    """Secrets of which any one will do: two are valid while one replaces the other."""

    def __init__(self, secrets: Iterable[SecretStr]) -> None:
        """Keep digests: equally long, so that comparing them tells nothing of a secret's length."""
        self._digests = [_digest(secret.get_secret_value().encode()) for secret in secrets]
        self._fingerprints = [digest.hex()[:_FINGERPRINT] for digest in self._digests]

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._digests)

    def match(self, presented: bytes) -> str | None:
        """A short name for the secret that was presented, fit for logs; None for a wrong one.

        All are compared, whichever fits.
        """
        digest = _digest(presented)
        found = None
        for own, fingerprint in zip(self._digests, self._fingerprints, strict=True):
            if hmac.compare_digest(own, digest):
                found = fingerprint
        return found

    def match_one(self, presented: Sequence[str]) -> str | None:
        """As ``match``, for a header's values; None unless it was sent exactly once."""
        return self.match(presented[0].encode("latin-1")) if len(presented) == 1 else None

    def match_value(self, presented: object) -> bool:
        """As ``match``, for a JSON value: only text can be right."""
        return (
            isinstance(presented, str) and self.match(presented.encode("utf-8", "surrogatepass")) is not None
        )


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(b"crm_pipeline:" + secret).digest()
