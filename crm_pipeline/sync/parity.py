"""Parity: what a comparison of both sides found, in words and figures and without a single value."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

WHOLE = "*"
"""In place of a field: it is about the whole contact."""


class Kind(StrEnum):
    """How the two sides differ, and the sync would never notice by itself."""

    VALUE = "value"
    """A field of a linked pair."""
    MISSING_HERE = "missing here"
    """The CRM has a record that no living contact is linked to."""
    MISSING_THERE = "missing there"
    """The contact's record is gone, or the contact never got one and nothing waits to make it."""
    DOUBLED_THERE = "doubled there"
    """A second record of a contact that is linked to another."""


class Known(StrEnum):
    """Why two sides may differ without anything being wrong."""

    NEWS = "the next pull brings it"
    WAITS = "waits to be applied"
    PENDING = "waits to be pushed"
    CONFLICT = "waits for a person"
    REJECTED = "rejected"
    RULE = "left out by a rule"
    GONE = "deleted or archived"
    UNTOLD = "the CRM cannot be asked"


@dataclass(frozen=True, slots=True)
class Drift:
    """One silent difference."""

    contact_id: str | None
    """None: the record does not say whose it is."""
    external_id: str | None
    """None: the contact has no record."""
    kind: Kind
    field: str = WHOLE


@dataclass(slots=True)
class ReconcileReport:
    """Both sides compared. A pair is a link, a record without one, or a contact without one."""

    records: int = 0
    """Read from the CRM."""
    agreed: int = 0
    """Pairs in which there is nothing to do."""
    known: Counter[Known] = field(default_factory=Counter)
    """Pairs that differ for a reason the sync knows of."""
    differing: int = 0
    """Pairs with a silent difference."""
    drifts: list[Drift] = field(default_factory=list)
    """All of those; a pair may differ in several fields."""
    repaired: bool = False
    """Whether the sync was given the differences to settle. Then each pair is one of these three:"""
    mended: int = 0
    for_people: int = 0
    """Rejected, with the reasons: only a person can tell."""
    remaining: int = 0
    """Pairs that differ still."""
    pages: int = 0
    api_calls: int = 0
    duration_seconds: float = 0.0
    note: str = ""
    """Why something remains, where that is known."""

    @property
    def compared(self) -> int:
        """Pairs looked at: every one ended somewhere."""
        return self.agreed + self.known.total() + self.differing

    def by_kind(self) -> dict[tuple[Kind, str], int]:
        """How many differences of which kind in which field, the most frequent first."""
        return dict(Counter((drift.kind, drift.field) for drift in self.drifts).most_common())

    def figures(self) -> dict[str, int]:
        """What is remembered of it."""
        return {
            "records": self.records,
            "compared": self.compared,
            "agreed": self.agreed,
            "known": self.known.total(),
            "differing": self.differing,
            "differences": len(self.drifts),
            "mended": self.mended,
            "for_people": self.for_people,
            "remaining": self.remaining,
        }
