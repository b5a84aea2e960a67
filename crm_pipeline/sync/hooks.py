"""Hooks: mapping methods a subclass of the service replaces, held to the same rules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import FieldMapping, Values


@dataclass(frozen=True, slots=True)
class HookedMapping:
    """A translator made of two functions somebody else wrote."""

    mapping: FieldMapping
    inward: Callable[[Any], Mapping[str, Any] | None]
    outward: Callable[[dict[str, Any]], Mapping[str, Any]]

    def to_contact(self, record: Any) -> Values | None:
        """Whatever the hook returns is checked like any record's values."""
        mapped = _guarded(self.inward, record)
        return None if mapped is None else self.mapping.checked(_mapping(mapped))

    def to_external(
        self,
        contact: Values,
        changed: Collection[str],
        before: Values,
        known: Mapping[str, Any] | None,  # noqa: ARG002 - a hook names the CRM's fields itself
    ) -> dict[str, Any]:
        """What the hook makes of the contact now, less what it made of it at the last agreement.

        The hook sees every field, but only the ``changed`` ones as they are now: one that
        waits for a person, or never goes out, looks as it did at the last agreement.
        """
        agreed = {name: before.get(name) for name in contact}
        now = {**agreed, **{name: contact[name] for name in changed if name in contact}}
        new = _guarded(self.outward, now)
        old = _guarded(self.outward, agreed) if before and new is not None else None
        return {} if new is None else _difference(_mapping(new), _mapping(old or {}))


def _difference(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """What differs, object by object: what is no longer made is cleared, and a new null says nothing."""
    found: dict[str, Any] = {key: None for key, was in old.items() if key not in new and was is not None}
    for key, value in new.items():
        was = old.get(key)
        if value != was:
            inside = isinstance(value, Mapping) and (was is None or isinstance(was, Mapping))
            found[key] = _difference(value, was or {}) if inside else value
    return found


def _mapping(made: Any) -> Mapping[str, Any]:
    if not isinstance(made, Mapping):
        raise RecordRejected({"record": "the mapping hook returned no mapping"})
    return made


def _guarded(hook: Callable[[Any], Any], argument: Any) -> Any:
    """Run foreign code: a fault in it rejects the record, and never stops the batch."""
    try:
        return hook(argument)
    except RecordRejected:
        raise
    except Exception as error:
        # Only the kind of error is told: its text may quote the record.
        raise RecordRejected({"record": f"the mapping hook failed ({type(error).__name__})"}) from error
