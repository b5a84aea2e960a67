"""A CRM that is away for days: what schedule, sensors and alerts do then, and after, by a moved clock."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import time_machine

from crm_pipeline.definitions import defs
from crm_pipeline.orchestration.alerts import alert_sensor
from crm_pipeline.orchestration.schedules import polling_schedule
from crm_pipeline.orchestration.sensors import contact_change_sensor, webhook_sensor
from crm_pipeline.simulators.faults import Faults
from crm_pipeline_tests.orchestration.world import World

_REPOSITORY = defs.get_repository_def()
MINUTE = timedelta(minutes=1)
_SENSORS = ((webhook_sensor, "webhook_job"), (contact_change_sensor, "push_job"))


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """A chat's webhook: its address, and the lines that it was told."""
    lines: list[str] = []

    class Chat(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            lines.extend(body["text"].splitlines()[1:])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Chat) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/s3cret", lines
        server.shutdown()


@dataclass
class Outage:
    """Somebody turns the clock, and Dagster's part is played at each turn."""

    world: World
    now: datetime
    runs: Counter[tuple[str, bool]] = field(default_factory=Counter)
    """How many runs of which job succeeded, and failed."""

    def go_on(self, span: timedelta, step: timedelta) -> None:
        """Let time pass: at each step everything looks once, and runs that are asked for run."""
        end = self.now + span
        while self.now < end:
            with time_machine.travel(self.now, tick=True):
                self._step()
            self.now += step

    def away(self, *, away: bool) -> None:
        """The CRM answers nothing but errors, or is back."""
        self.world.crm.faults = Faults(server_error=int(away), server_error_status=503)

    def _step(self) -> None:
        with dg.build_schedule_context(
            instance=self.world.instance,
            scheduled_execution_time=self.now,
            repository_def=_REPOSITORY,
            resources=self.world.resources,
        ) as context:
            asked = polling_schedule.evaluate_tick(context).run_requests or []
        for request in asked:
            tags = {**request.tags, "dagster/schedule_name": "polling_schedule"}
            self._run("pull_job", run_config=request.run_config, tags=tags)
        for sensor, job in _SENSORS:
            request_or_reason = self.world.tick(sensor)
            if isinstance(request_or_reason, dg.RunRequest):
                self._run(job, tags=request_or_reason.tags)
        self.world.tick(alert_sensor)

    def _run(self, job: str, **run: Any) -> None:
        self.runs[job, self.world.attempt(job, **run).success] += 1
