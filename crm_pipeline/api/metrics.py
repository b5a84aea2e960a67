"""Metrics: what Prometheus may ask, about requests and about the sync."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

from crm_pipeline.sync.calls import ANSWERS, BUCKETS
from crm_pipeline.sync.reports import Outcome

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Where processes that serve together keep their figures, so that each of them tells those of all."""
_GAUGES = {
    "contacts": ("crm_contacts", "Contacts in the database"),
    "backlog": ("crm_backlog", "Records and webhooks that are due to be applied"),
    "waitingRecords": ("crm_waiting_records", "Records that have landed and were not applied"),
    "waitingWebhooks": ("crm_waiting_webhooks", "Webhooks that were not applied, due or not"),
    "oldestWebhookSeconds": ("crm_oldest_webhook_seconds", "How long the oldest of them has waited"),
    "rejected": ("crm_rejected", "Rejected records, webhooks and pushes that wait for a person"),
    "conflicts": ("crm_conflicts", "Fields that wait for a person"),
    "pendingPushes": ("crm_pending_pushes", "Contacts that wait to be pushed"),
    "lagSeconds": ("crm_lag_seconds", "Since the last complete read of the CRM began"),
    "apiCallsToday": ("crm_budget_calls_today", "Calls of ours since midnight UTC, where there is a budget"),
    "apiQuota": ("crm_budget_limit", "The account's calls of a day, where known"),
    "apiQuotaLeft": ("crm_budget_left", "What the CRM told last of them"),
}
"""Figures of the status: what nobody knows is not told."""


class Metrics:
    """The figures of one process, or of all that share a folder."""

    def __init__(self) -> None:
        """Start at zero."""
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
        self._actions: dict[str, Counter] = {}

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
            figure = self._actions.get(action)
            if figure is None:
                figure = self._actions[action] = self._events.labels(action)
            figure.inc()

    def text(self, status: Mapping[str, Any], heartbeat_age: float | None) -> tuple[bytes, str]:
        """Everything in Prometheus' text format, and its media type.

        Args:
            status: ``get_status()``.
            heartbeat_age: seconds since Dagster's daemon last gave a sign of life, where known.
        """
        own = self.registry
        if os.environ.get(_SHARED):
            own = CollectorRegistry()
            MultiProcessCollector(own)  # type: ignore[no-untyped-call] # typed but for this
        sync = CollectorRegistry()
        sync.register(_Families([*families(status), *_daemon(heartbeat_age)]))
        return generate_latest(own) + generate_latest(sync), CONTENT_TYPE_LATEST


class _Families:
    """What a registry asks."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> list[Metric]:
        return self._found


def families(status: Mapping[str, Any]) -> Iterator[Metric]:
    """The figures of a status."""
    for name, (metric, text) in _GAUGES.items():
        if status[name] is not None:
            yield GaugeMetricFamily(metric, text, value=status[name])
    yield GaugeMetricFamily("crm_enabled", "Whether the integration is on", value=status["enabled"])
    yield GaugeMetricFamily("crm_polling", "Whether polling is on", value=status["polling"] == "active")
    open_alerts = GaugeMetricFamily("crm_alerts_open", "What is wrong now, by severity", labels=["severity"])
    open_alerts.add_metric(["error"], status["alertErrors"])
    open_alerts.add_metric(["warning"], status["alertWarnings"])
    yield open_alerts
    yield from _times(status)
    yield from _totals(status["totals"])


def _times(status: Mapping[str, Any]) -> Iterator[Metric]:
    moments = {
        "lastSuccess": ("crm_last_success_timestamp_seconds", "When a step of the sync last succeeded"),
        "watermark": ("crm_watermark_timestamp_seconds", "How far pulls have safely read"),
    }
    for name, (metric, text) in moments.items():
        if status[name] is not None:
            yield GaugeMetricFamily(metric, text, value=datetime.fromisoformat(status[name]).timestamp())
    running = GaugeMetricFamily("crm_step_running", "Whether the step is under way", labels=["step"])
    for step, run in status["runs"].items():
        running.add_metric([step], run is not None and run["state"] == "running")
    yield running


def _totals(totals: Mapping[str, Mapping[str, float]]) -> Iterator[Metric]:
    runs = CounterMetricFamily("crm_runs", "Steps of runs that ended, by how", labels=["step", "state"])
    seconds = CounterMetricFamily("crm_run_seconds", "Seconds that steps took", labels=["step"])
    outcomes = CounterMetricFamily("crm_outcomes", "Where records ended", labels=["step", "outcome"])
    calls = CounterMetricFamily("crm_calls", "Requests to the CRM, by answer", labels=["step", "status"])
    lengths = HistogramMetricFamily("crm_call_seconds", "Seconds to the CRM's whole answer", labels=["step"])
    for step, amounts in totals.items():
        for end in ("done", "failed"):
            runs.add_metric([step, end], amounts.get(f"runs_{end}", 0))
        seconds.add_metric([step], amounts.get("seconds", 0))
        for outcome in Outcome:
            outcomes.add_metric([step, outcome], amounts.get(outcome, 0))
        for answer in ANSWERS:
            calls.add_metric([step, answer], amounts.get(f"calls_{answer}", 0))
        counts = [(f"{bound:g}", amounts.get(f"calls_le_{bound:g}", 0.0)) for bound in BUCKETS]
        lengths.add_metric(
            [step], [*counts, ("+Inf", amounts.get("calls", 0.0))], amounts.get("call_seconds", 0)
        )
    yield from (runs, seconds, outcomes, calls, lengths)


def _daemon(heartbeat_age: float | None) -> Iterator[Metric]:
    if heartbeat_age is not None:
        text = "Since Dagster's daemon last gave a sign of life"
        yield GaugeMetricFamily("crm_daemon_heartbeat_age_seconds", text, value=heartbeat_age)
