"""Coercion: any JSON value becomes a field's canonical value, or a reason why it cannot.

A canonical value is a JSON scalar (instants as UTC text), so that values can be
compared, stored and shown without knowing where they came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from crm_pipeline import instants
from crm_pipeline.contact import FieldType
from crm_pipeline.sync.identity import NoIdentityError, whatsapp_id

Value: TypeAlias = str | int | float | bool | None

MAX_INTEGER = 2**63 - 1
_EXACT = 2**53
"""From here on floats leave whole numbers out: one is read as its neighbour."""
MAX_TEXT = 100_000
"""Characters. Longer text is a mistake or an attack, and no CRM holds it."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,100}(?:\.0{1,2})?", re.ASCII)
"""Not three zeros: ``150.000`` is 150 thousand in Indonesia and 150 elsewhere."""
_DECIMAL = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?", re.ASCII)
_ISO = re.compile(
    r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}(?:[T ][0-9:.,]+(?:Z|[+-][0-9:.]+)?)?",
    re.ASCII,
)
"""What ``fromisoformat`` may see: by itself it takes any character between date and time."""
_USUAL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)
"""How nearly every CRM writes a moment: its canonical text, but for the microseconds."""
_EPOCH = re.compile(r"-?[0-9]{9,13}", re.ASCII)
_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_IS_MILLISECONDS = 100_000_000_000
"""1973 in milliseconds, year 5138 in seconds: the two never meet in practice."""
_SMALLEST_EPOCH = 100_000_000
"""1973. Nearer to zero it is a missing date, or one written as a number: 20260131."""
_LARGEST_EPOCH = 9_999_999_999_999
"""2286 in milliseconds. Longer numbers are microseconds, or dates without punctuation."""


class NotAValueError(ValueError):
    """The value does not fit the field; the text says why, without the value."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a field takes."""

    type: FieldType
    choices: tuple[str, ...] = ()
    synonyms: dict[str, str] = field(default_factory=dict)
    nullable: bool = True
    zone: str = "UTC"
    region: str = "ID"


Coercer: TypeAlias = Callable[[Any], Value]


def coercer(spec: Spec) -> Coercer:
    """Compile a spec: a function from JSON value to canonical value.

    Blank text is a value of a text field, and an empty field of any other type.

    The function raises:
        NotAValueError: the value does not fit.
    """
    if spec.type is FieldType.TEXT:
        return _text
    if spec.type is FieldType.CHOICE:
        return _choice(spec)
    if spec.type is FieldType.INSTANT:
        return _instant(ZoneInfo(spec.zone))
    if spec.type is FieldType.WHATSAPP_ID:
        return _whatsapp_id(spec.region)
    return {
        FieldType.INTEGER: _integer,
        FieldType.NUMBER: _number,
        FieldType.BOOLEAN: _boolean,
    }[spec.type]


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(value: Any) -> Value:
    if isinstance(value, str):
        if "\x00" in value:
            msg = "holds a NUL character"
            raise NotAValueError(msg)
        if not value.isascii():
            _encodable(value)
        if len(value) > MAX_TEXT:
            msg = f"is longer than {MAX_TEXT} characters"
            raise NotAValueError(msg)
        return value
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number_as_text(value)
    raise _wrong(value, "text")


def _number_as_text(value: float) -> str:
    """Digits, without the fraction of a whole number: to JSON, ``5`` and ``5.0`` are one."""
    if not abs(value) <= MAX_INTEGER:  # past 64 bits the JSON decoder has dropped digits already
        msg = "is a number out of range"
        raise NotAValueError(msg)
    return str(int(value)) if value == int(value) else str(value)


def _integer(value: Any) -> Value:
    if value.__class__ is int and 0 <= value <= MAX_INTEGER:
        return value
    if _is_empty(value):
        return None
    if isinstance(value, str):
        text = value.strip()
        if not _WHOLE.fullmatch(text):
            msg = "is not a whole number"
            raise NotAValueError(msg)
        number = int(text.split(".", 1)[0])
    elif isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0:
        number = int(value)
    else:
        raise _wrong(value, "a whole number")
    if number < 0:
        msg = "is negative"
        raise NotAValueError(msg)
    if number > MAX_INTEGER:
        msg = "does not fit into 64 bits"
        raise NotAValueError(msg)
    if isinstance(value, float) and number >= _EXACT:
        msg = "has too many digits for a number with a decimal point"
        raise NotAValueError(msg)
    return number


def _number(value: Any) -> Value:
    if _is_empty(value):
        return None
    if isinstance(value, str):
        text = value.strip()
        if not _DECIMAL.fullmatch(text):
            msg = "is not a number"
            raise NotAValueError(msg)
        value = float(text)
    elif not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(value, "a number")
    # As a float, which rounds the limit up: what was read once can be read again. Said so
    # that it is true of what is no number, too.
    if not abs(value) <= float(MAX_INTEGER):
        msg = "is out of range"
        raise NotAValueError(msg)
    return float(value)


_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


def _boolean(value: Any) -> Value:
    if _is_empty(value):
        return None
    if isinstance(value, str):
        known = _BOOLEANS.get(value.strip().lower())
    else:  # 1 and 0 are the booleans of databases
        known = bool(value) if isinstance(value, int | float) and value in (0, 1) else None
    if known is None:
        raise _wrong(value, "true or false")
    return known


def _choice(spec: Spec) -> Coercer:
    known = {choice.casefold(): choice for choice in spec.choices}
    known |= {name.strip().casefold(): choice for name, choice in spec.synonyms.items()}
    exact = {choice for choice in spec.choices if known[choice.casefold()] == choice}

    def coerce(value: Any) -> Value:
        if value.__class__ is str and value in exact:
            return str(value)
        if _is_empty(value):
            return None
        if not isinstance(value, str):
            raise _wrong(value, "one of the known values")
        choice = known.get(value.strip().casefold())
        if choice is None:
            msg = f"is not one of {', '.join(spec.choices)} or a known synonym"
            raise NotAValueError(msg)
        return choice

    return coerce


def _instant(zone: ZoneInfo) -> Coercer:
    def coerce(value: Any) -> Value:
        if value is None:
            return None
        try:
            if value.__class__ is datetime and value.tzinfo is UTC:
                return instants.to_text(value)
            return _instant_text(value, zone)
        except (ValueError, OverflowError):
            if _is_empty(value):
                return None
        msg = "is not a date and time"
        raise NotAValueError(msg)

    return coerce


@lru_cache(maxsize=65_536)
def _parse_instant(text: str, zone: ZoneInfo) -> str:
    if _USUAL.fullmatch(text):
        datetime.fromisoformat(text)  # there is such a day, and such a time
        return f"{text[:-1]}.000000Z"
    if _EPOCH.fullmatch(text):
        return instants.to_text(_from_epoch(int(text)))
    if not _ISO.fullmatch(text):
        msg = "no time"
        raise ValueError(msg)
    moment = datetime.fromisoformat(text)
    return instants.to_text(moment.replace(tzinfo=zone) if moment.tzinfo is None else moment)


def _instant_text(value: Any, zone: ZoneInfo) -> str:
    if isinstance(value, str):
        return _parse_instant(value.strip(), zone)
    if isinstance(value, datetime):
        return instants.to_text(value.replace(tzinfo=zone) if value.tzinfo is None else value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return instants.to_text(_from_epoch(value))
    msg = "no time"
    raise ValueError(msg)


def _from_epoch(number: float) -> datetime:
    if not _SMALLEST_EPOCH <= abs(number) <= _LARGEST_EPOCH:
        msg = "no time"
        raise ValueError(msg)
    unit = timedelta(milliseconds=1) if abs(number) >= _EPOCH_IS_MILLISECONDS else timedelta(seconds=1)
    return _EPOCH_START + number * unit


def _whatsapp_id(region: str) -> Coercer:
    def coerce(value: Any) -> Value:
        if _is_empty(value):
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = _number_as_text(value)
        if not isinstance(value, str):
            raise _wrong(value, "a WhatsApp id or phone number")
        try:
            return whatsapp_id(value, region)
        except NoIdentityError as error:
            raise NotAValueError(str(error)) from None

    return coerce


def _encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        msg = "holds half a character (a lone surrogate)"
        raise NotAValueError(msg) from None


def _wrong(value: Any, wanted: str) -> NotAValueError:
    kind = {
        bool: "true/false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return NotAValueError(f"is {kind.get(type(value), 'something else')}, not {wanted}")


def same(left: Value, right: Value) -> bool:
    """Whether two canonical values mean the same.

    Text is compared by composed characters, one kind of line end, and without blanks
    around it: what CRMs change by themselves and no user means by an edit.
    """
    if left == right:
        return True
    if not isinstance(left, str) or not isinstance(right, str):
        return False
    return comparable(left) == comparable(right)


def comparable(text: str) -> str:
    """Text as ``same`` compares it."""
    if text.isascii() and "\r" not in text:
        return text.strip()
    import unicodedata  # noqa: PLC0415 - only where two texts differ

    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
