"""Zoho's notification channels: made and renewed by one call; one that is not renewed ends without a word."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from crm_pipeline.connectors.base import CrmAnswerError, CrmRefusedError
from crm_pipeline.connectors.documents import document
from crm_pipeline.connectors.session import Answer, Session, problem_of

LONGEST_LIFE = timedelta(hours=23)
"""Zoho gives one hour to whoever asks for more than a day (API 2; newer versions allow a week)."""
LONGEST_TOKEN = 50
_EVENTS = ("Contacts.create", "Contacts.edit", "Contacts.delete")
_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Channel:
    """What Zoho is asked for."""

    id: str
    """A whole number of our choice."""
    notify_url: str
    token: str
    """Comes back with each notification, and proves it."""
    expires_at: datetime


def ask_for(session: Session, url: str, channel: Channel) -> datetime:
    """Renew the channel, or make it where Zoho knows none of this id; when it ends.

    Raises:
        ConnectorError: Zoho did not take it.
    """
    wanted = {
        "channel_id": channel.id,
        "events": list(_EVENTS),
        "notify_url": channel.notify_url,
        "token": channel.token,
        "channel_expiry": channel.expires_at.isoformat(timespec="seconds"),
    }
    body = orjson.dumps({"watch": [wanted]})
    renewed = _answered(session.send("PUT", url, body=body))
    result = (
        renewed if renewed.get("status") == "success" else _answered(session.send("POST", url, body=body))
    )
    if result.get("status") != "success":
        raise CrmRefusedError(f"Zoho does not take the notification channel: {result.get('code')}")
    try:
        ends = datetime.fromisoformat(str(result["details"]["events"][0]["channel_expiry"]))
    except (KeyError, IndexError, TypeError, ValueError):
        raise CrmAnswerError("Zoho does not say when the notification channel ends") from None
    if ends.tzinfo is None:
        raise CrmAnswerError("Zoho does not say when the notification channel ends")
    return ends


def _answered(answer: Answer) -> dict[str, Any]:
    """The one result of an answer, good or bad.

    Raises:
        ConnectorError: it is about more than this channel, such as the credentials.
    """
    problem = problem_of(answer)
    if problem is not None and answer.status != 400:  # noqa: PLR2004
        raise problem
    found = document(answer, _DEPTH)
    told = found if isinstance(found, dict) else {}
    results = told.get("watch")
    if isinstance(results, list) and results and isinstance(results[0], dict):
        return results[0]
    return told
