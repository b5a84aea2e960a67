"""The CRM's address: what may be requested, and what must never be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

import requests

from crm_pipeline.connectors.base import ConnectorSetupError, CrmAnswerError

_PORTS = {"http": 80, "https": 443}
_ODD = re.compile(r"[\\\s\x00-\x1f\x7f]")
_DOTS = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)


class UnaddressableError(ValueError):
    """A record's id that no path segment can carry."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what a credential belongs to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin | None:
        """Return the origin of an absolute URL; None for one with a user name, or one that is odd."""
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            return None
        if not parts.hostname or "@" in parts.netloc or _ODD.search(url):
            return None
        return cls(parts.scheme, parts.hostname, port)


class Address:
    """One CRM's base URL, and the only place credentials may go to."""

    def __init__(self, base_url: str) -> None:
        """Take the base URL. ``ConnectorSetupError`` when it is none."""
        self.base = _prepared(base_url)
        self.origin = Origin.of(self.base) if self.base else None
        if self.origin is None:
            raise ConnectorSetupError("EXTERNAL_CRM_API_URL (base_url) must be the absolute URL of the CRM")

    def at(self, path: str, external_id: str | None = None) -> str:
        """URL of a path below the base, with ``{id}`` as exactly one segment.

        Raises:
            UnaddressableError: the id is empty, ``.`` or ``..``, or not Unicode text.
        """
        if external_id is not None:
            path = path.replace("{id}", _segment(external_id))
        return f"{self.base.rstrip('/')}/{path.lstrip('/')}" if path else self.base

    def admits(self, url: str) -> bool:
        """Tell whether a URL stays with the CRM."""
        return Origin.of(url) == self.origin

    def follow(self, current: str, link: str) -> str:
        """Resolve a link to a next page found in the answer from ``current``.

        Raises:
            CrmAnswerError: it leaves the CRM's origin, or climbs (``..``). The text does
                not repeat it: links carry tokens.
        """
        if link.startswith("//") or _ODD.search(link) or _DOTS.search(re.split(r"[?#]", link)[0]):
            raise CrmAnswerError("the CRM's link to the next page is not a plain address of its own; refused")
        try:
            url = urljoin(current, link)
        except ValueError:
            url = ""
        if not self.admits(url):
            raise CrmAnswerError("the CRM's link to the next page leads to another origin; refused")
        return url


def _prepared(url: str) -> str:
    """Return the URL as requests will really ask for it, host in lower case and encoded."""
    try:
        return str(requests.Request("GET", url).prepare().url).partition("#")[0]
    except (requests.RequestException, ValueError):
        return ""


def _segment(external_id: str) -> str:
    """Percent-encode all but unreserved characters. Dots are unreserved: ``..`` cannot be hidden."""
    if external_id in {"", ".", ".."}:
        raise UnaddressableError("the record's id cannot stand in an address")
    try:
        return quote(external_id, safe="")
    except UnicodeEncodeError:
        raise UnaddressableError("the record's id is not Unicode text") from None
