"""A hand-made service for tests of what surrounds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.orchestration.safely import told_safely
from crm_pipeline.settings import Settings, load_settings
from crm_pipeline.sync.reports import Counts, Report


@dataclass
class FakeService:
    """Answers what it was told to, and remembers what it was asked."""

    polling: bool = True
    last_poll_at: datetime | None = None
    watermark: datetime | None = None
    changes: int = 0
    counts: Counts = field(default_factory=lambda: Counts(created=1, updated=2, unchanged=3, skipped=4, rejected=5))
    summary: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None
    asked: list[tuple[object, ...]] = field(default_factory=list)

    def pull(self, since: datetime | None = None, until: datetime | None = None) -> Report:
        """See ``ExternalCrmService``."""
        return self._report("pull", since, until)

    def remap(self, since: datetime | None = None, until: datetime | None = None) -> int:
        """See ``ExternalCrmService``."""
        self.asked.append(("remap", since, until))
        return 7

    def apply(self) -> Report:
        """See ``ExternalCrmService``."""
        return self._report("apply")

    def push(self) -> Report:
        """See ``ExternalCrmService``."""
        return self._report("push")

    def changes_pending(self) -> int:
        """See ``ExternalCrmService``."""
        self.asked.append(("changes_pending",))
        return self.changes

    def health(self) -> dict[str, Any]:
        """See ``ExternalCrmService``."""
        return self.summary

    def _report(self, step: str, *asked: object) -> Report:
        self.asked.append((step, *asked))
        if self.error is not None:
            raise self.error
        return Report(step, self.counts, api_calls=6, duration_seconds=1.5, watermark=self.watermark, pages=8)


class FakeCrm(ExternalCrm):
    """The resource around a fake service; ``FakeCrm.around`` makes one."""

    fake: ClassVar[FakeService]
    variables: ClassVar[dict[str, Any]]

    def settings(self) -> Settings:
        """Return the default settings with these variables."""
        return load_settings(**self.variables)

    @contextmanager
    def service(self, run_id: str = "") -> Iterator[Any]:
        """Lend the fake."""
        self.fake.asked.append(("opened", run_id))
        with told_safely():
            yield self.fake

    @staticmethod
    def around(service: FakeService, **variables: Any) -> FakeCrm:
        """Make a resource of a class of its own: Dagster copies resources, classes it keeps."""
        usual = {"external_crm_enabled": True, "external_crm_api_url": "https://crm.example"}
        kind = type("FakeCrm", (FakeCrm,), {"fake": service, "variables": {**usual, **variables}})
        resource: FakeCrm = kind(database=Database())
        return resource
