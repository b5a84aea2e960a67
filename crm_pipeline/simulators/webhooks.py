"""Telling a receiver of every change, in the guide's webhook format, from a thread of its own.

Deletions are not told: that format has no word for them.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import orjson
import requests

ATTEMPTS = 5
FIRST_PAUSE = 0.2
"""Seconds before the second attempt; each further pause is twice as long."""
TIMEOUT = (2.0, 10.0)
"""Seconds to connect, and to wait for an answer."""
_PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class WebhookSender:
    """A queue of changed records and the thread that delivers them, one at a time, in order.

    A change is repeated when the receiver is away or answers 429 or 5xx, ``ATTEMPTS`` times
    in all; then it counts as failed, as does one refused with another status.
    """

    def __init__(self, url: str, secret: str, api_key: str) -> None:
        """Nothing is sent before ``start``."""
        self.delivered = 0
        self.failed = 0
        self._url = url
        self._secret = secret
        self._headers = {"Content-Type": "application/json"} | ({"X-API-Key": api_key} if api_key else {})
        self._queue: deque[dict[str, Any]] = deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._busy = False
        self._thread: threading.Thread | None = None

    def enqueue(self, record: dict[str, Any]) -> None:
        """Have a changed record delivered."""
        with self._changed:
            self._queue.append(record)
            self._changed.notify_all()

    def start(self) -> None:
        """Begin to deliver."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="crm-webhooks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the attempt under way. What is still queued stays queued."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wait_idle(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until every change is delivered or has failed."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout)

    def stats(self) -> dict[str, int]:
        """How many deliveries succeeded, failed and are still to come."""
        with self._changed:
            return {
                "delivered": self.delivered,
                "failed": self.failed,
                "pending": len(self._queue) + self._busy,
            }

    def _run(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while (record := self._take()) is not None:
                delivered = self._deliver(session, record)
                with self._changed:
                    self._busy = False
                    self.delivered += delivered
                    self.failed += not delivered
                    self._changed.notify_all()

    def _take(self) -> dict[str, Any] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopping.is_set())
            if self._stopping.is_set():
                return None
            self._busy = True
            return self._queue.popleft()

    def _deliver(self, session: requests.Session, record: dict[str, Any]) -> bool:
        body = orjson.dumps({"secret": self._secret, **record} if self._secret else record)
        for attempt in range(ATTEMPTS):
            if attempt and self._stopping.wait(FIRST_PAUSE * 2 ** (attempt - 1)):
                return False
            try:
                answer = session.post(self._url, data=body, headers=self._headers, timeout=TIMEOUT)
            except requests.RequestException:
                continue  # the receiver is away: a passing cause, bounded by the attempts
            if answer.ok:
                return True
            if answer.status_code not in _PASSING_STATUSES:
                return False
        return False
