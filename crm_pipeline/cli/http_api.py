"""The HTTP API from outside: its process, and a caller."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import requests

from crm_pipeline.cli.processes import child

_TIMEOUT = (5.0, 60.0)


@contextmanager
def http_api(
    port: int,
    home: Path,
    *,
    folder: Path,
    environment: Mapping[str, str],
    log: Path | None = None,
    keep_open: Sequence[IO[str]] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``crm-pipeline serve`` on loopback.

    Args:
        port: to listen on.
        home: Dagster's own folder, where its runs are shown.
        folder: working folder, whose ``.env`` it reads.
        environment: its variables, beside ``DAGSTER_HOME``.
        log: file for its output; ours when not given.
        keep_open: files it inherits.
    """
    with child(
        [sys.executable, "-m", "crm_pipeline.cli.main", "serve", "--port", str(port)],
        folder=folder,
        environment={**environment, "DAGSTER_HOME": str(home)},
        log=log,
        keep_open=keep_open,
    ) as process:
        yield process


class Answer(NamedTuple):
    """What the API said."""

    status: int
    document: dict[str, Any]


class HttpApi:
    """The API, called over HTTP."""

    def __init__(self, url: str, key: str) -> None:
        """``url`` is the server's root, ``key`` one of ``CRM_API_KEY``."""
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy has no business on loopback
        self._session.headers["X-API-Key"] = key

    def up(self) -> bool:
        """Whether it answers."""
        try:
            return self._session.get(f"{self.url}/healthz", timeout=_TIMEOUT).ok
        except requests.ConnectionError:
            return False

    def webhook(self, body: Mapping[str, Any]) -> Answer:
        """Send a webhook."""
        return self._call("POST", "webhook", body)

    def event(self, event_id: str) -> Answer:
        """Ask what became of a webhook."""
        return self._call("GET", f"webhook/{event_id}")

    def push(self, contact_id: str) -> Answer:
        """Have a contact written to the CRM."""
        return self._call("POST", f"push/{contact_id}")

    def status(self) -> Answer:
        """Ask how the sync stands."""
        return self._call("GET", "status")

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        response = self._session.request(
            method, f"{self.url}/api/external/{path}", json=body, timeout=_TIMEOUT
        )
        return Answer(response.status_code, response.json())
