"""Messages: incidents in words, and as a document for programs. Pure; no personal data, no secrets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crm_pipeline import instants
from crm_pipeline.store.alerts import Incident


@dataclass(frozen=True, slots=True)
class Message:
    """What a channel is given."""

    subject: str
    text: str
    document: dict[str, Any]


def message(connection: str, incidents: Sequence[Incident], channel: str) -> Message:
    """All incidents in one message to a channel, those that are open before those that are over."""
    ordered = sorted(incidents, key=lambda each: (each.closed_at is not None, not each.grave, each.id))
    lines = [_line(each, known=channel in each.told) for each in ordered]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return Message(
        subject=f"[crm_pipeline] {connection}: {_title(ordered[0])}{more}",
        text="\n".join([f"crm_pipeline, connection '{connection}'", *lines]),
        document={
            "source": "crm_pipeline",
            "connection": connection,
            "incidents": [_document(each) for each in ordered],
        },
    )


def trial(connection: str) -> Message:
    """A message that only shows that messages arrive."""
    text = "This is a test: alerts of this connection arrive here."
    return Message(
        subject=f"[crm_pipeline] {connection}: test",
        text=f"crm_pipeline, connection '{connection}'\n{text}",
        document={"source": "crm_pipeline", "connection": connection, "incidents": [], "test": True},
    )


def _title(incident: Incident) -> str:
    return f"{_state(incident)}: {incident.key}"


def _state(incident: Incident) -> str:
    if incident.closed_at is not None:
        return "RECOVERED"
    return "ERROR" if incident.grave else "WARNING"


def _line(incident: Incident, *, known: bool) -> str:
    if incident.closed_at is not None:
        return f"RECOVERED: {incident.key}, after {_span(incident)}"
    figures = ", ".join(f"{name} {number:g}" for name, number in incident.figures.items())
    again = "still wrong, now an error: " if known else ""  # the only reason to tell of it once more
    return f"{_state(incident)}: {again}{incident.text}" + (f" ({figures})" if figures else "")


def _span(incident: Incident) -> str:
    minutes = round((incident.seen_at - incident.opened_at).total_seconds() / 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _document(incident: Incident) -> dict[str, Any]:
    over = incident.closed_at
    return {
        "id": incident.id,
        "key": incident.key,
        "state": "open" if over is None else "recovered",
        "severity": "error" if incident.grave else "warning",
        "text": incident.text,
        "figures": dict(incident.figures),
        "openedAt": instants.to_text(incident.opened_at),
        "closedAt": None if over is None else instants.to_text(over),
    }
