"""Figures for Prometheus, and the files that are shipped for it and for Grafana."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from crm_pipeline.api.metrics import Metrics, families
from crm_pipeline.sync.calls import BUCKETS, CallFigures
from crm_pipeline_tests.api.conftest import Serve
from crm_pipeline_tests.api.served import Served

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "crm-pipeline.json"
RULES, SCRAPE = DEPLOY / "prometheus" / "rules.yml", DEPLOY / "prometheus" / "prometheus.yml"
STATUS: dict[str, Any] = {
    "enabled": True, "polling": "active", "contacts": 5, "backlog": 3, "waitingRecords": 1,
    "waitingWebhooks": 2, "oldestWebhookSeconds": 7.5, "rejected": 1, "conflicts": 0, "pendingPushes": 4,
    "lagSeconds": 60.0, "apiCallsToday": 10, "apiQuota": 1000, "apiQuotaLeft": 900, "alertErrors": 1,
    "alertWarnings": 2, "lastSuccess": "2026-03-04T12:00:00.000000Z",
    "watermark": "2026-03-04T11:00:00.000000Z",
    "runs": {"pull": {"state": "running"}, "push": None},
    "totals": {"pull": {"runs_done": 3, "runs_failed": 1, "created": 5, "calls": 2, "calls_2xx": 1,
                        "calls_none": 1, "calls_le_1": 1, "call_seconds": 3.5, "seconds": 9}},
}  # fmt: skip


def _samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _everything() -> dict[tuple[str, ...], float]:
    metrics = Metrics()
    metrics.request("/healthz", "GET", 200, 0.01)
    metrics.events(["created"])
    return _samples(metrics.text(STATUS, 12.0)[0].decode())


def test_the_status_in_figures() -> None:
    """Each figure under its name; times as seconds since 1970; what a step did in all, as counters."""
    found = _everything()
    assert found["crm_lag_seconds",] == 60.0
    assert found["crm_oldest_webhook_seconds",] == 7.5
    assert found["crm_polling",] == found["crm_enabled",] == 1
    assert (found["crm_alerts_open", "error"], found["crm_alerts_open", "warning"]) == (1, 2)
    assert found["crm_last_success_timestamp_seconds",] == 1772625600
    assert (found["crm_step_running", "pull"], found["crm_step_running", "push"]) == (1, 0)
    assert (found["crm_runs_total", "done", "pull"], found["crm_runs_total", "failed", "pull"]) == (3, 1)
    assert found["crm_outcomes_total", "created", "pull"] == 5
    assert found["crm_calls_total", "none", "pull"] == 1
    assert found["crm_call_seconds_bucket", "+Inf", "pull"] == found["crm_call_seconds_count", "pull"] == 2
    assert found["crm_call_seconds_sum", "pull"] == 3.5
    assert found["crm_daemon_heartbeat_age_seconds",] == 12.0


def test_what_nobody_knows_is_not_told() -> None:
    """No zero in place of a watermark, a quota or a daemon that is not there."""
    unknown = ("lagSeconds", "oldestWebhookSeconds", "apiQuota", "apiQuotaLeft", "lastSuccess", "watermark")
    names = {family.name for family in families({**STATUS, **dict.fromkeys(unknown), "totals": {}})}
    assert "crm_contacts" in names
    assert not names & {"crm_lag_seconds", "crm_budget_limit", "crm_watermark_timestamp_seconds"}


def test_calls_are_counted_by_answer_and_length() -> None:
    """Each in every bucket that holds it; taken once."""

    class Sent:
        def __init__(self, status: int | None, seconds: float) -> None:
            self.status, self.seconds = status, seconds

    figures = CallFigures()
    for sent in (Sent(200, 0.2), Sent(429, 0.01), Sent(None, 31.0)):
        figures.note(sent)
    taken = figures.take()
    assert {name: taken[name] for name in ("calls", "calls_2xx", "calls_429", "calls_none")} == {
        "calls": 3, "calls_2xx": 1, "calls_429": 1, "calls_none": 1,
    }  # fmt: skip
    assert [taken.get(f"calls_le_{bound:g}") for bound in BUCKETS] == [1, 1, 2, 2, 2, 2, 2, 2, 2]
    assert figures.take() == {"call_seconds": 0.0}


def test_figures_of_a_real_sync(serve: Serve) -> None:
    """Counted when a step ends, kept in the database, told by any process; the key is needed."""
    api = serve()
    assert api.ask("GET", "/metrics", key=None).status_code == 401
    api.post({"phone": "628222222222"})
    api.service.apply_events()
    found = _samples(api.ask("GET", "/metrics").text)
    assert found["crm_outcomes_total", "apply", "created"] == 1
    assert found["crm_runs_total", "apply", "done"] == 1
    assert found["crm_contacts",] == 1


def test_several_processes_tell_one_figure(tmp_path: Path) -> None:
    """Where they share a folder, each of them tells the requests of all."""
    code = (
        "from crm_pipeline.api.metrics import Metrics;"
        "from crm_pipeline_tests.api.test_metrics import STATUS;"
        "m = Metrics(); m.request('/healthz', 'GET', 200, 0.01); print(m.text(STATUS, None)[0].decode())"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    told = [
        subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        for _ in range(2)
    ]
    found = _samples(told[-1].stdout)
    assert found["crm_http_requests_total", "/healthz", "200", "GET"] == 2
    assert found["crm_contacts",] == 5


def _names(expression: str) -> set[str]:
    return set(re.findall(r"\bcrm_\w+", expression))


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return panels


def test_the_dashboard_asks_for_figures_that_there_are() -> None:
    """Every name in every query is told by the API; every panel has a place, an id, and a query."""
    known = {key[0] for key in _everything()}
    asked = {
        name for panel in _panels() for each in panel.get("targets", ()) for name in _names(each["expr"])
    }
    assert asked <= known
    plots = [panel for panel in _panels() if panel["type"] != "row"]
    assert all(panel["targets"] for panel in plots)
    assert len({panel["id"] for panel in _panels()}) == len(_panels())


def test_the_dashboard_loads() -> None:
    """It has what Grafana asks of a file: a title, a schema, panels that do not lie on each other."""
    dashboard = json.loads(DASHBOARD.read_text())
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= dashboard.keys()
    assert [each["name"] for each in dashboard["templating"]["list"]] == ["datasource", "job"]
    taken: set[tuple[int, int]] = set()
    for panel in _panels():
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_every_figure_of_the_sync_is_on_the_dashboard_or_in_a_rule_or_plain() -> None:
    """Nothing is told that nobody would ever look at."""
    asked = _names(DASHBOARD.read_text()) | _names(RULES.read_text())
    bare = {"crm_enabled", "crm_polling", "crm_step_running", "crm_backlog", "crm_run_seconds"}
    told = {family.name for family in families(STATUS)}
    of_whole = {name for name in told if any(each.startswith(name) for each in asked)}
    assert told - of_whole <= bare | {"crm_last_success_timestamp_seconds", "crm_watermark_timestamp_seconds"}


def test_rules_ask_for_figures_that_there_are() -> None:
    """Each has a name, a time and a sentence; the scraper is shown where the key goes."""
    known = {key[0] for key in _everything()}
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]:
        assert _names(rule["expr"]) <= known
        assert {"alert", "for", "labels", "annotations"} <= rule.keys()
    (job,) = yaml.safe_load(SCRAPE.read_text())["scrape_configs"]
    assert list(job["http_headers"]) == ["X-API-Key"]
    assert group["rules"][0]["expr"] == f'up{{job="{job["job_name"]}"}} == 0'


@pytest.mark.parametrize("key", ["enabled", "lagSeconds", "alertErrors", "totals"])
def test_the_status_has_what_the_figures_are_made_of(shared: Served, key: str) -> None:
    """One source for both: what the dashboard shows, ``status --json`` shows."""
    assert key in shared.ask("GET", "/api/external/status").json()
