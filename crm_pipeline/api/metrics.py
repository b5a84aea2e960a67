"""Metrics: what Prometheus may ask, about requests and about the sync."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_GAUGES = {
    "contacts": "Contacts in the database",
    "backlog": "Records and webhooks that wait to be applied",
    "rejected": "Rejected records, webhooks and pushes that wait for a person",
    "conflicts": "Fields that wait for a person",
    "pendingPushes": "Contacts that wait to be pushed",
}


class Metrics:
    """The figures of one process."""

    def __init__(self) -> None:
        """Start at zero. With ``PROMETHEUS_MULTIPROC_DIR``, processes add up what they count."""
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "crm_http_requests",
            "Requests, by route, method and status",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "crm_http_request_seconds",
            "Seconds to an answer",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._answers: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._events = Counter(
            "crm_webhook_events", "Webhook events received, by action", ("action",), registry=self.registry
        )
        self._sync = {
            name: Gauge(f"crm_{_snake(name)}", text, registry=self.registry, multiprocess_mode="mostrecent")
            for name, text in _GAUGES.items()
        }
        self._last_success = Gauge(
            "crm_last_success_timestamp_seconds",
            "When a step of the sync last succeeded",
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        answer = (route, method, status)
        figures = self._answers.get(answer)
        if figures is None:
            figures = self._requests.labels(route, method, str(status)), self._seconds.labels(route)
            self._answers[answer] = figures
        figures[0].inc()
        figures[1].observe(seconds)

    def events(self, actions: Iterable[str]) -> None:
        """Count webhook events."""
        for action in actions:
            self._events.labels(action).inc()

    def text(self, status: Mapping[str, Any]) -> tuple[bytes, str]:
        """Everything in Prometheus' text format, and its media type; ``status`` is ``get_status()``."""
        for name, gauge in self._sync.items():
            gauge.set(status[name])
        if status["lastSuccess"] is not None:
            self._last_success.set(datetime.fromisoformat(status["lastSuccess"]).timestamp())
        return generate_latest(self._of_all()), CONTENT_TYPE_LATEST

    def _of_all(self) -> CollectorRegistry:
        """Our figures, or those of all processes that share them."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self.registry
        of_all = CollectorRegistry()
        MultiProcessCollector(of_all)  # type: ignore[no-untyped-call] # its stubs lack the annotation
        return of_all


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
