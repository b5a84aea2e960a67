"""Bodies: JSON within bounds, and room for only so many."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from crm_pipeline.api.bodies import MAX_BYTES, BodyReader, Document, parse
from crm_pipeline.api.problems import Problem

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(value=DOCUMENTS)
def test_json_comes_through_as_it_is(value: Any) -> None:
    """Whatever the standard writer writes is read back the same, integers of any usual size included."""
    read = parse(json.dumps(value).encode())
    assert read.value == value
    assert read.storable == ("\\u0000" not in json.dumps(value))


@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """No bytes are a failure of ours."""
    try:
        found = parse(body)
    except Problem as refused:
        assert refused.status == 400
    else:
        assert isinstance(found, Document)


@pytest.mark.parametrize(
    "text, value",
    [
        ("[" * 32 + "1" + "]" * 32, None),
        ("9" * 64, int("9" * 64)),
        ("-" + "9" * 64, -int("9" * 64)),
        ("1e308", 1e308),
    ],
)
def test_what_is_just_within_bounds_is_read(text: str, value: Any) -> None:
    """The bounds are where they are said to be."""
    assert value is None or parse(text.encode()).value == value
    assert parse(text.encode()).storable


def read(content: bytes, **headers: str) -> bytes:
    """Read a body that comes in two parts."""
    parts = [content[:10], content[10:]]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    lines = {
        "content-type": "application/json",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return asyncio.run(BodyReader().read(Headers(lines), receive))


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
    ],
)
def test_spellings_of_the_type(kind: str) -> None:
    """JSON is JSON, in any case and with the one encoding it has."""
    assert read(b'{"a": "b", "c": "d"}', content_type=kind) == b'{"a": "b", "c": "d"}'


def test_the_longest_body_is_taken() -> None:
    """1 MiB exactly."""
    assert (
        len(read(b" " * MAX_BYTES, content_length=str(MAX_BYTES), content_encoding="identity")) == MAX_BYTES
    )


def test_a_client_that_goes_is_no_body() -> None:
    """Half a body is never taken for a whole one."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        asyncio.run(BodyReader().read(Headers({"content-type": "application/json"}), receive))


def test_only_so_many_bodies_are_held_at_once() -> None:
    """Past that, callers are told to come again; room is given back."""
    reader = BodyReader(max_held=2 * MAX_BYTES)
    with reader.room(), reader.room():
        with pytest.raises(Problem) as refused, reader.room():
            pass
        assert refused.value.status == 503
        assert refused.value.headers["Retry-After"] == "1"
    with reader.room():
        pass
