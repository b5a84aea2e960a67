"""JSON in and out: fast where it can be, and never losing a record to one odd character."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, NoReturn

import orjson


def loads(text: str | bytes) -> Any:
    """Decode JSON.

    Raises:
        ValueError: not JSON, nested too deeply, or ``NaN``/``Infinity``, which JSON does not have.

    A number too big for any type stays the text it was, for validation to name.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # orjson refuses lone surrogates; the standard parser keeps them for validation to name.
        return _standard_loads(text)


def _standard_loads(text: str | bytes) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        msg = "the JSON is nested too deeply"
        raise ValueError(msg) from None


def dumps(value: Any) -> str:
    """Encode with sorted keys: equal documents give equal text."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except (orjson.JSONEncodeError, TypeError):
        # Integers past 64 bits and lone surrogates: kept, escaped, for validation to name.
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def storable(text: str) -> bool:
    """Whether a database can hold a text: no NUL, and no half of a character."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text))


LONGEST_KEY = 255
"""Characters of a text that names a row. PostgreSQL's indexes hold a third of a page at the most."""


def why_no_key(text: str) -> str | None:
    """Why a text from outside can name no row of a database; None where it can."""
    if len(text) > LONGEST_KEY:
        return f"is longer than {LONGEST_KEY} characters"
    return None if storable(text) else "holds a character that cannot be stored"


def content_hash(text: str) -> str:
    """Name of a content: equal text, equal name."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _finite(text: str) -> float | str:
    """``1e999`` would silently become infinity, and infinity null."""
    number = float(text)
    return number if math.isfinite(number) else text


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)
