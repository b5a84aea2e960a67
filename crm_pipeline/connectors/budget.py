"""What an account may be asked: the calls of all its processes together stay within its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from crm_pipeline.connectors.repeats import NotSentError


class BudgetSpentError(NotSentError):
    """Nothing was sent: the account's share of calls is used up for now."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer's headers tell of an account's limits; None where they do not."""

    daily_limit: int | None = None
    daily_left: int | None = None
    window_limit: int | None = None
    """Calls in one short window, such as HubSpot's ten seconds."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A kind of call with a limit of its own, such as HubSpot's searches."""

    name: str
    calls: int
    seconds: float


class Budget(Protocol):
    """An account's budget, shared by everybody who calls its CRM."""

    def acquire(self, lane: Lane | None = None) -> None:
        """Wait until one more call is within the limits, and within its lane's.

        Raises:
            BudgetSpentError: the day's share is used up, or the wait would be too long.
        """

    def note(self, usage: Usage) -> None:
        """Learn from an answer."""


def no_usage(_headers: Mapping[str, str]) -> Usage | None:
    """A CRM that tells nothing."""
    return None
