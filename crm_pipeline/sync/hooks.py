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
        return None if mapped is None else self.mapping.checked(mapped)

    def to_external(
        self,
        contact: Values,
        changed: Collection[str],  # noqa: ARG002 - the hook's own output says what changed
        before: Values,
        known: Mapping[str, Any] | None,  # noqa: ARG002 - a hook names the CRM's fields itself
    ) -> dict[str, Any]:
        """What the hook makes of the contact now, less what it made of it at the last agreement."""
        new = _guarded(self.outward, dict(contact)) or {}
        old = (_guarded(self.outward, dict(before)) or {}) if before else {}
        missing = object()
        return {key: value for key, value in new.items() if old.get(key, missing) != value}


def _guarded(hook: Callable[[Any], Any], argument: Any) -> Any:
    """Run foreign code: a fault in it rejects the record, and never stops the batch."""
    try:
        return hook(argument)
    except RecordRejected:
        raise
    except Exception as error:
        # Only the kind of error is told: its text may quote the record.
        raise RecordRejected({"record": f"the mapping hook failed ({type(error).__name__})"}) from error
