"""Which requests may be sent again, and after how long: decided here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from crm_pipeline.connectors.base import ConnectorError, CrmAnswerError, CrmUnavailableError

UNTOLD_WAIT = 1.0
"""Seconds asked for by a CRM that throttles without saying for how long."""
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_THROTTLED = frozenset({429, 503})
_SECONDS = re.compile(r"\s*(-?)([0-9]{1,9})(?:\.[0-9]*)?\s*")
_ENDLESS = re.compile(r"\s*[0-9]+(?:\.[0-9]*)?\s*")


class NotSentError(CrmUnavailableError):
    """No connection: the CRM has seen nothing of the request."""


class LostAnswerError(CrmUnavailableError):
    """The request went out, and no answer came back."""


class CutAnswerError(CrmAnswerError):
    """The answer began, and broke off."""


def certainly_not_applied(status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether an answer proves that the CRM did nothing.

    A bare 503 does not: gateways also give it when the CRM dies in the middle of the work.
    """
    return status in {425, 429} or (status == 503 and "Retry-After" in headers)  # noqa: PLR2004


def may_repeat(method: str, status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether this answer is worth the same request again, and it can do no harm."""
    return status in _PASSING if method == "GET" else certainly_not_applied(status, headers)


def may_repeat_after(method: str, problem: ConnectorError) -> bool:
    """Tell the same of a request without a whole answer."""
    return isinstance(problem, (CrmUnavailableError, CutAnswerError) if method == "GET" else NotSentError)


def asked_wait(status: int, headers: Mapping[str, str], now: datetime) -> float:
    """Seconds the CRM asks us to wait: 0 where it asks for nothing, infinite for absurdly long."""
    asked = retry_after(headers.get("Retry-After"), now)
    if asked is None:
        return UNTOLD_WAIT if status in _THROTTLED else 0.0
    return asked


def retry_after(text: str | None, now: datetime) -> float | None:
    """Read ``Retry-After`` in seconds or as an HTTP date; never negative, None for nonsense."""
    if text is None:
        return None
    if match := _SECONDS.fullmatch(text):
        return 0.0 if match[1] else float(match[2])
    if _ENDLESS.fullmatch(text):
        return float("inf")
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
