"""A preview: what the mapping makes of one record, field by field, and why. Nothing is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from crm_pipeline.sync.coerce import NotAValueError, Value
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import CompiledField, FieldMapping, Translator, Values
from crm_pipeline.sync.paths import held


@dataclass(frozen=True, slots=True)
class FieldPreview:
    """One field."""

    name: str
    source: str
    """Where in the record its value stands; empty where it is not mentioned."""
    raw: Any
    value: Value
    reason: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What becomes of a record."""

    fields: list[FieldPreview]
    contact: Values | None
    """The contact, by column names; None for a record that is left out or rejected."""
    rejected: dict[str, str] = field(default_factory=dict)


def preview(mapping: FieldMapping, translator: Translator, record: Any) -> Preview:
    """Map a record, and say of every field where its value comes from."""
    told = record if isinstance(record, dict) else {}
    fields = [_field(mapping, each, told) for each in mapping.fields.values()]
    try:
        return Preview(fields, translator.to_contact(record))
    except RecordRejected as rejected:
        return Preview(fields, None, rejected.reasons)


def _field(mapping: FieldMapping, rule: CompiledField, record: dict[str, Any]) -> FieldPreview:
    places = [path for path in (rule.parts or rule.paths) if held(record, path)[0]]
    if not places:
        names = ", ".join(rule.parts or rule.paths)
        return FieldPreview(rule.json_name, "", None, None, f"not mentioned ({names}): left alone")
    found = [held(record, path)[1] for path in places]
    source = " + ".join(places) if rule.parts else places[0]
    raw: Any = found if rule.parts else found[0]
    if rule.name == "id":
        return _identity(rule, record, places)
    try:
        text = (" ".join(str(each) for each in found if each) or None) if rule.parts else raw
        value = rule.coerce(None if text == mapping.empty else text)
    except NotAValueError as error:
        return FieldPreview(rule.json_name, source, raw, None, f"rejected: {error}")
    if value is None:
        reason = "null: clears the field" if rule.nullable else "null: left alone, it cannot be empty"
    else:
        reason = "taken as it is" if value == raw else "brought into our form"
    return FieldPreview(rule.json_name, source, raw, value, reason)


def _identity(rule: CompiledField, record: dict[str, Any], places: list[str]) -> FieldPreview:
    """The first usable id of all places counts."""
    problem = "no usable WhatsApp id"
    for path in places:
        raw = held(record, path)[1]
        try:
            value = rule.coerce(raw)
        except NotAValueError as error:
            problem = f"{path} {error}"
            continue
        if value is not None:
            reason = "taken as it is" if value == raw else "brought into our form"
            return FieldPreview(rule.json_name, path, raw, value, reason)
    return FieldPreview(rule.json_name, places[0], held(record, places[0])[1], None, f"rejected: {problem}")
