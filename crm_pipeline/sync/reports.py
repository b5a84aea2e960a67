"""What a pull, an apply and a push report: counts that add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Outcome(StrEnum):
    """Where a record ended."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    REJECTED = "rejected"


@dataclass(slots=True)
class Counts:
    """How many records ended where."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    rejected: int = 0

    @property
    def seen(self) -> int:
        """All of them: every record ends somewhere."""
        return self.created + self.updated + self.unchanged + self.skipped + self.rejected

    @property
    def changed(self) -> int:
        """Records that changed something."""
        return self.created + self.updated

    def add(self, outcomes: Counter[Outcome]) -> None:
        """Count more outcomes."""
        for outcome, number in outcomes.items():
            setattr(self, outcome.value, getattr(self, outcome.value) + number)

    def by_outcome(self) -> Counter[Outcome]:
        """The five numbers."""
        return Counter({outcome: getattr(self, outcome.value) for outcome in Outcome})

    def as_dict(self) -> dict[str, int]:
        """For JSON and metadata."""
        return {
            "seen": self.seen,
            "created": self.created,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "skipped": self.skipped,
            "rejected": self.rejected,
        }


@dataclass(slots=True)
class Report:
    """One step of a sync, done."""

    step: str
    """``pull``, ``apply`` or ``push``."""
    counts: Counts = field(default_factory=Counts)
    """Pull: records read, against what had landed before (``created``: first seen,
    ``updated``: new content). Apply: contacts. Push: CRM records."""
    api_calls: int = 0
    duration_seconds: float = 0.0
    watermark: datetime | None = None
    pages: int = 0
    conflicts: int = 0
    pending: int = 0
    """Push: left for the next run (passing failures, unknown outcomes)."""
    contact_ids: list[str] = field(default_factory=list)
    """Apply: contacts created or updated, the first ``CONTACT_IDS_KEPT`` of them."""
    left_out: set[str] = field(default_factory=set)
    """Push: why contacts were skipped, each reason once."""
    resumed: bool = False
    """Pull: went on where an earlier one was interrupted; what that had read was not read again."""
    note: str = ""
    """Why nothing was done, where nothing was done."""

    def figures(self) -> dict[str, int]:
        """What is remembered of it."""
        return {**self.counts.as_dict(), "conflicts": self.conflicts, "pending": self.pending}


CONTACT_IDS_KEPT = 1000
