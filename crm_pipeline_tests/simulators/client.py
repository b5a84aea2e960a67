"""A plain client of a simulated CRM: what a stranger with ``requests`` would write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import requests

from crm_pipeline.simulators.generic import CONTACTS_PATH, GenericCrm


class Client:
    """One session with the right key. Never retries, follows no redirects."""

    def __init__(self, base: str, crm: GenericCrm) -> None:
        """``base`` is where ``crm`` is served."""
        self.base = base
        self.crm = crm
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {crm.options.api_key}"

    def call(self, method: str, below: str = "", **options: Any) -> requests.Response:
        """Request a URL below the list endpoint."""
        options = {"timeout": 5, "allow_redirects": False} | options
        return self.session.request(method, self.base + CONTACTS_PATH + below, **options)

    def page(self, **params: Any) -> requests.Response:
        """One page of the listing."""
        return self.call("GET", params=params)

    def sim(self, method: str, name: str, body: Any = None) -> requests.Response:
        """Request a control endpoint, without the key."""
        return requests.request(method, f"{self.base}/sim/{name}", json=body, timeout=5)

    def links(self, first: requests.Response, place: str) -> Iterator[requests.Response]:
        """Pages by following a link in the body or the Link header, the first one included."""
        page: requests.Response | None = first
        while page is not None:
            yield page
            link = page.links.get("next", {}).get("url") if place == "Link" else at(page.json(), place)
            page = self.session.get(link, timeout=5) if link else None


def at(document: Any, path: str) -> Any:
    """Value at a dotted path; None where it leads nowhere, the document itself for no path."""
    for name in path.split(".") if path else ():
        document = document.get(name) if isinstance(document, dict) else None
    return document
