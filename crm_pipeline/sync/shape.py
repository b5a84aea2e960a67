"""Shape: which fields records bring and of what kind, so that a CRM's changed schema is noticed. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from crm_pipeline import instants
from crm_pipeline.sync.paths import held

ENOUGH = 20
"""Records that say something: fewer prove nothing."""
USUAL = 0.9
"""A field that this share of the records held is one that the CRM always sends."""
NEWS_FOR = timedelta(days=7)
"""For so long a new kind of value is told; then it counts as known."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How records differ from those before; names are those of the contact's fields."""

    fields: int = 0
    """Fields that records have ever held."""
    vanished: tuple[str, ...] = ()
    """Fields that nearly every record held, and the last ``ENOUGH`` did not."""
    changed: tuple[str, ...] = ()
    """Fields that have lately got a kind of value they never had, such as text in place of a number."""


def noted(
    state: Mapping[str, Any],
    records: Iterable[Mapping[str, Any]],
    paths: Mapping[str, Collection[str]],
    now: datetime,
) -> dict[str, Any]:
    """What is remembered after some more records.

    Args:
        state: what was remembered before them.
        records: as the CRM sent them, the newest last.
        paths: where each field may stand; one of them is enough.
        now: when they are looked at.
    """
    fields = {name: _known(state, name) for name in paths}
    before = {name: known["present"] for name, known in fields.items()}
    for record in records:
        for name, known in fields.items():
            found = [value for mentioned, value in (held(record, path) for path in paths[name]) if mentioned]
            known["looked"] += 1
            known["missing"] = 0 if found else known["missing"] + 1
            known["present"] += bool(found)
            kind = _kind(found[0]) if found else None
            if kind is not None:
                known["kinds"].setdefault(kind, [instants.to_text(now), before[name]])
    return {"fields": fields}


def judged(state: Mapping[str, Any], now: datetime) -> Shape:
    """What has changed."""
    fields: Mapping[str, Any] = state.get("fields", {})
    return Shape(
        fields=sum(known["present"] > 0 for known in fields.values()),
        vanished=tuple(name for name, known in fields.items() if _vanished(known)),
        changed=tuple(name for name, known in fields.items() if _changed(known, now)),
    )


def _known(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    known = state.get("fields", {}).get(name, {"looked": 0, "present": 0, "missing": 0, "kinds": {}})
    return {**known, "kinds": dict(known["kinds"])}


def _vanished(known: Mapping[str, Any]) -> bool:
    earlier = known["looked"] - known["missing"]
    enough = min(known["missing"], known["present"]) >= ENOUGH
    return enough and bool(known["present"] >= USUAL * earlier)


def _changed(known: Mapping[str, Any], now: datetime) -> bool:
    return any(
        present_before >= ENOUGH and now - instants.from_text(first_seen) < NEWS_FOR
        for first_seen, present_before in known["kinds"].values()
    )


def _kind(value: Any) -> str | None:
    """The JSON kind of a value; null is of any kind."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "boolean"
    kinds = {int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return kinds.get(type(value), "other")
