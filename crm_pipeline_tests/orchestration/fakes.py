"""A hand-made service for tests of what surrounds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

import dagster as dg

from crm_pipeline import instants
from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.orchestration.safely import told_safely
from crm_pipeline.settings import Settings, load_settings
from crm_pipeline.store.rejects import Reject
from crm_pipeline.sync.context import Progress, no_progress
from crm_pipeline.sync.evidence import Evidence, Part
from crm_pipeline.sync.health import Health
from crm_pipeline.sync.reports import Counts, Report

WELL = Health(
    outcomes={"created": 80, "updated": 5, "unchanged": 5, "skipped": 10, "rejected": 0},
    waiting=0,
    landed=100,
    pull_rejects=0,
    push_rejects=0,
    events_waiting=0,
    oldest_event_at=None,
    contacts=90,
    odd_deal_status=0,
    odd_status=0,
    doubled=0,
)
"""A healthy database."""


@dataclass
class FakeService:
    """Answers what it was told to, and remembers what it was asked."""

    polling: bool = True
    last_poll_at: datetime | None = None
    watermark: datetime | None = None
    changes: int = 0
    events: int = 0
    oldest_event_at: datetime | None = None
    busy: bool = False
    last_applied_by: str | None = None
    counts: Counts = field(
        default_factory=lambda: Counts(created=1, updated=2, unchanged=3, skipped=4, rejected=5)
    )
    days: dict[str, int] = field(default_factory=dict)
    rejected: list[Reject] = field(default_factory=list)
    summary: Health = WELL
    error: Exception | None = None
    settings: Settings = field(default_factory=lambda: settings())  # noqa: PLW0108 - defined further on
    asked: list[tuple[object, ...]] = field(default_factory=list)

    def pull(
        self, since: datetime | None = None, until: datetime | None = None, progress: Progress = no_progress
    ) -> Report:
        """See ``ExternalCrmService``."""
        progress(10_000, None)
        return self._report("pull", since, until)

    def remap(self, since: datetime | None = None, until: datetime | None = None) -> int:
        """See ``ExternalCrmService``."""
        self.asked.append(("remap", since, until))
        return 7

    def apply(self, *, allow_deletes: bool) -> Report:
        """See ``ExternalCrmService``."""
        return self._report("apply", *(["allow deletes"] if allow_deletes else []))

    def push(self) -> Report:
        """See ``ExternalCrmService``."""
        return self._report("push")

    def records_by_day(self, since: datetime, until: datetime) -> dict[str, int]:
        """See ``ExternalCrmService``."""
        assert since < until
        return self.days

    def events_due(self, since: datetime | None = None, until: datetime | None = None) -> Report:
        """See ``ExternalCrmService``."""
        return self._report("events_due", since, until)

    def events_by_day(self, since: datetime, until: datetime) -> dict[str, int]:
        """See ``ExternalCrmService``."""
        return self.records_by_day(since, until)

    def events_pending(self) -> int:
        """See ``ExternalCrmService``."""
        self.asked.append(("events_pending",))
        return self.events

    def rejects(self, limit: int | None = None) -> list[Reject]:
        """See ``ExternalCrmService``."""
        return self.rejected[:limit]

    def changes_pending(self) -> int:
        """See ``ExternalCrmService``."""
        self.asked.append(("changes_pending",))
        return self.changes

    def evidence(self, part: Part | None = None, *, look: bool = True) -> Evidence:
        """See ``ExternalCrmService``."""
        self.asked.append(("evidence", part, look))
        return Evidence(instants.now(), self.polling, timedelta(minutes=30), health=self.summary)

    def _report(self, step: str, *asked: object) -> Report:
        self.asked.append((step, *asked))
        if self.error is not None:
            raise self.error
        return Report(step, self.counts, api_calls=6, duration_seconds=1.5, watermark=self.watermark, pages=8)


def settings(**variables: Any) -> Settings:
    """Settings of an enabled connection, with these variables."""
    usual = {"external_crm_enabled": True, "external_crm_api_url": "https://crm.example"}
    return load_settings(**{**usual, **variables})


class FakeCrm(ExternalCrm):
    """The resource around a fake service."""

    fake: ClassVar[FakeService]

    @contextmanager
    def service(self, database: Database, run_id: str = "") -> Iterator[Any]:  # noqa: ARG002
        """Lend the fake; ``database`` is not needed."""
        self.fake.asked.append(("opened", run_id))
        with told_safely():
            yield self.fake


def resources(service: FakeService) -> dict[str, dg.ConfigurableResource[Any]]:
    """Resources around a fake service. Dagster copies resources; the class it keeps."""
    return {
        "external_crm": type("OneFakeCrm", (FakeCrm,), {"fake": service})(),
        "database": Database(url=None),
    }
