"""Mapping: compiled field rules between a CRM's record and a contact, both ways.

Absent, null and a value are three things: a key that is missing from the result says
nothing about the field, null clears it, and ``0`` and ``""`` are values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol, TypeAlias
from zoneinfo import ZoneInfo

from crm_pipeline import instants
from crm_pipeline.connection import Connection, Direction, FieldRule, Policy
from crm_pipeline.connectors.documents import dig
from crm_pipeline.connectors.records import key_at
from crm_pipeline.contact import BUILT_IN, ContactField, FieldType
from crm_pipeline.sync.coerce import Coercer, NotAValueError, Spec, Value, coercer
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.paths import MISSING, get, needs_walk, put

Values: TypeAlias = dict[str, Value]
"""Canonical values by field name; a missing key is absent."""


@dataclass(frozen=True, slots=True)
class CompiledField:
    """One field, ready to be read and written."""

    name: str
    json_name: str
    type: FieldType
    paths: tuple[str, ...]
    write: str | None
    parts: tuple[str, ...]
    """Places of a text kept in several; empty for all other fields."""
    placeholder: str | None
    """What a text is written as that is empty here and must not be there."""
    coerce: Coercer
    coerce_internal: Coercer
    """For values SQL programs wrote: their naive times are UTC, as the column says."""
    choices: tuple[str, ...]
    nullable: bool
    direction: Direction
    policy: Policy
    built_in: bool


class Translator(Protocol):
    """The two mapping directions; a subclass of the service may replace either."""

    def to_contact(self, record: Any) -> Values | None:
        """Canonical values of a record; None leaves the record out.

        Raises:
            RecordRejected: the record cannot become a contact.
        """

    def to_external(
        self, contact: Values, changed: Collection[str], before: Values, known: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """What to write to the CRM so that ``changed`` fields of ``contact`` arrive there.

        ``before`` holds the contact as it was last in agreement with the CRM and
        ``known`` the record as last read, where there is one.

        Raises:
            RecordRejected: a value cannot be written.
        """


_Rule: TypeAlias = tuple[str, str, tuple[str, ...], Coercer, bool]
"""A field's name, its key or the paths to be tried, and what becomes of the value found."""


_MANY_KEYS = 200
"""A record with more of them has names of its own, which are not kept."""


class FieldMapping:
    """The mapping a connection describes."""

    def __init__(self, connection: Connection) -> None:
        """Compile the rules once; using them is a dictionary walk."""
        self.fields: dict[str, CompiledField] = {
            name: _compile(name, connection) for name in [*BUILT_IN, *_own_fields(connection)]
        }
        self.own = {name for name, field in self.fields.items() if not field.built_in}
        """Names of fields that share the column ``custom``."""
        self.empty_columns = dict.fromkeys(name for name in self.fields if name not in self.own)
        """The columns of all other fields, empty."""
        self._read = [
            (field, needs_walk(field.paths))
            for field in self.fields.values()
            if field.type is not FieldType.WHATSAPP_ID and not field.parts
        ]
        self._rules_for = lru_cache(maxsize=256)(self._rules)
        self._empty = dict.fromkeys(self.fields)
        columns = [name for name in self.fields if name not in self.own]
        self._column_rules = (columns, [self.fields[name].coerce_internal for name in columns])
        own = [name for name in self.fields if name in self.own]
        self._own_rules = (own, [self.fields[name].coerce_internal for name in own])
        self._needed = [name for name, field in self.fields.items() if not field.nullable]
        self._part_rules = [field for field in self.fields.values() if field.parts]
        self.empty = connection.records.empty
        writing = connection.writing
        self._time_format, self._time_zone = writing.time_format, ZoneInfo(writing.time_zone)
        self._id = self.fields["id"]
        self._id_walk = needs_walk(self._id.paths)
        self._record_id = connection.records.id
        # When a record was made says nothing of when it was changed.
        self._modified = [path for path in connection.records.modified if not path.startswith("created")]
        self._instant = coercer(Spec(FieldType.INSTANT, zone=connection.timezone))
        self.region = connection.default_region
        self.outward = connection.select.outward

    def to_contact(self, record: Any) -> Values:
        """Canonical values of a record. See ``Translator.to_contact``."""
        if not isinstance(record, dict):
            raise RecordRejected(self._why_no_object(record))
        reasons: dict[str, str] = {}
        values = self._identity(record, reasons)
        empty = self.empty
        rules = self._rules(record) if len(record) > _MANY_KEYS else self._rules_for(tuple(record))
        for name, key, walked, coerce, nullable in rules:
            path, raw = _first(record, walked) if walked else (key, record[key])
            if raw is MISSING:
                continue
            try:
                value = coerce(None if raw == empty else raw)
            except NotAValueError as error:
                reasons[self.fields[name].json_name] = f"{path} {error}"
            else:
                if value is not None or nullable:
                    values[name] = value
        for field in self._part_rules:
            self._read_parts(field, record, values, reasons)
        if reasons:
            raise RecordRejected(reasons)
        return values

    def _why_no_object(self, record: Any) -> dict[str, str]:
        """Connectors put a record that cannot be kept under its id into a list."""
        alone = record[0] if isinstance(record, list) and len(record) == 1 else None
        _, wrong = key_at(alone, self._record_id)
        return wrong or {"record": "is not an object"}

    def _rules(self, keys: Collection[str]) -> list[_Rule]:
        """What to read of a record with these keys: the first name of each field that is there.

        Kept, since records come with the same keys again and again. Paths inside values are tried in each.
        """
        rules: list[_Rule] = []
        for field, walk in self._read:
            there = [path for path in field.paths if path in keys]
            if walk or there:
                walked, key = (field.paths, "") if walk else ((), there[0])
                rules.append((field.name, key, walked, field.coerce, field.nullable))
        return rules

    def _read_parts(
        self, field: CompiledField, record: dict[str, Any], values: Values, reasons: dict[str, str]
    ) -> None:
        """Join a text that is kept in several places; absent only where all of them are."""
        found = [raw for raw in (get(record, path) for path in field.parts) if raw is not MISSING]
        if not found:
            return
        try:
            texts = [str(field.coerce(raw) or "").strip() for raw in found]
            values[field.name] = field.coerce(" ".join(text for text in texts if text) or None)
        except NotAValueError as error:
            reasons[field.json_name] = f"{field.parts[-1]} {error}"

    def to_external(
        self,
        contact: Values,
        changed: Collection[str],
        before: Values,  # noqa: ARG002 - part of the protocol; only hooks compare with it
        known: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Changed fields in the CRM's own shape. See ``Translator.to_external``."""
        payload: dict[str, Any] = {}
        wanted = frozenset(changed) & contact.keys()
        for name in filter(wanted.__contains__, self.fields):
            field = self.fields[name]
            for path, value in _written(field, self._outward(field, contact[name]), known, self.empty):
                if not put(payload, path, value, known):
                    raise RecordRejected({field.json_name: f"{path} runs through another value"})
        return payload

    def canonical(self, columns: Mapping[str, Any]) -> tuple[Values, dict[str, str]]:
        """Canonical values of a contact's row, and what is wrong with the rest.

        Other programs write the table with plain SQL: a value no rule understands
        stays as it is here, and is named in the second part. A contact has every field:
        one of your own that its row does not mention is empty.
        """
        values: Values = self._empty.copy()
        reasons: dict[str, str] = {}
        for (names, coercers), held in (
            (self._column_rules, columns),
            (self._own_rules, columns.get("custom", {})),
        ):
            for name, coerce, stored in zip(names, coercers, map(held.get, names), strict=True):
                if stored is not None:
                    try:
                        values[name] = coerce(stored)
                    except NotAValueError as error:
                        reasons[self.fields[name].json_name] = str(error)
                        values[name] = str(stored)
        for name in self._needed:
            if values[name] is None and name in columns:
                reasons[self.fields[name].json_name] = "cannot be empty"
        return values, reasons

    def checked(self, values: Mapping[str, Any]) -> Values:
        """Canonical values of what a hook returned, under column or JSON names.

        Raises:
            RecordRejected: a value does not fit, or a name is no field.
        """
        names = {field.json_name: name for name, field in self.fields.items()} | {
            name: name for name in self.fields
        }
        result: Values = {}
        reasons: dict[str, str] = {}
        for key, raw in values.items():
            name = names.get(key)
            if name is None:
                reasons[str(key)] = "is not a field of a contact"
                continue
            try:
                value = self.fields[name].coerce(raw)
            except NotAValueError as error:
                reasons[self.fields[name].json_name] = str(error)
            else:
                if value is not None or self.fields[name].nullable:
                    result[name] = value
        if reasons:
            raise RecordRejected(reasons)
        return result

    def _outward(self, field: CompiledField, value: Value) -> Value:
        """A value as the CRM writes it."""
        if field.placeholder is not None and value in (None, ""):
            return field.placeholder
        if value is None:
            return self.empty
        if field.type is not FieldType.INSTANT or not isinstance(value, str):
            return value
        if self._time_format == "iso":
            return value.replace(".000000Z", "Z")
        return instants.from_text(value).astimezone(self._time_zone).strftime(self._time_format)

    def whose(self, record: Any) -> str | None:
        """The WhatsApp id a record names; None where it names no usable one."""
        found = self._identity(record, {}).get("id") if isinstance(record, dict) else None
        return found if isinstance(found, str) else None

    def modified_at(self, record: Mapping[str, Any]) -> datetime | None:
        """When a record was changed, if it says so itself in a way that is understood."""
        for path in self._modified:
            raw = dig(record, path)
            if raw is None:
                continue
            try:
                text = self._instant(raw)
            except NotAValueError:
                continue
            return instants.from_text(text) if isinstance(text, str) else None
        return None

    def _identity(self, record: dict[str, Any], reasons: dict[str, str]) -> Values:
        """The first usable id; a record whose ids are all empty simply has none."""
        for path in self._id.paths:
            raw = get(record, path) if self._id_walk else record.get(path, MISSING)
            if raw is MISSING:
                continue
            try:
                value = self._id.coerce(raw)
            except NotAValueError as error:
                reasons["id"] = f"{path} {error}"
                continue
            if value is not None:
                reasons.pop("id", None)
                return {"id": value}
        return {}


def _first(record: dict[str, Any], paths: tuple[str, ...]) -> tuple[str, Any]:
    """The first path that leads somewhere, and what is there."""
    for path in paths:
        raw = get(record, path)
        if raw is not MISSING:
            return path, raw
    return "", MISSING


def _own_fields(connection: Connection) -> list[str]:
    return [name for name in connection.fields if name not in BUILT_IN]


def _compile(name: str, connection: Connection) -> CompiledField:
    rule = connection.fields.get(name, FieldRule())
    base = BUILT_IN.get(name) or ContactField(name, name, rule.type or FieldType.TEXT, rule.names or (name,))
    choices = rule.choices or base.choices
    spec = Spec(
        type=rule.type or base.type,
        choices=choices,
        synonyms={said: meant for said, meant in base.synonyms if meant in choices} | rule.synonyms,
        zone=connection.timezone,
        region=connection.default_region,
    )
    internal = Spec(spec.type, spec.choices, spec.synonyms, region=spec.region)
    return CompiledField(
        name=name,
        json_name=base.json_name,
        type=spec.type,
        paths=rule.names or base.external_names,
        write=rule.write,
        parts=rule.parts or (),
        placeholder=rule.placeholder,
        coerce=_without_placeholder(coercer(spec), rule.placeholder),
        coerce_internal=_without_placeholder(coercer(internal), rule.placeholder),
        choices=choices,
        nullable=base.nullable,
        direction=rule.direction,
        policy=rule.policy or connection.merge.policy,
        built_in=name in BUILT_IN,
    )


def _without_placeholder(coerce: Coercer, placeholder: str | None) -> Coercer:
    """Read a placeholder as nothing, on either side."""
    if placeholder is None:
        return coerce
    return lambda raw: None if raw == placeholder else coerce(raw)


def _written(
    field: CompiledField, value: Value, known: Mapping[str, Any] | None, empty: Value
) -> Iterable[tuple[str, Value]]:
    """Where a value goes, and what goes there."""
    if not field.parts:
        return [(_written_path(field, known), value)]
    before, _, last = str(value or "").strip().rpartition(" ")
    middle: list[tuple[str, Value]] = [(path, empty) for path in field.parts[1:-1]]
    return [(field.parts[0], before.strip() or empty), *middle, (field.parts[-1], last or empty)]


def _written_path(field: CompiledField, known: Mapping[str, Any] | None) -> str:
    """Write the name the record already uses, so that no second one appears beside it."""
    if field.write:
        return field.write
    if known is not None:
        for path in field.paths:
            if get(known, path) is not MISSING:
                return path
    return field.paths[0]
