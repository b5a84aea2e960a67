"""Bodies: JSON within bounds, and room for only so many."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from crm_pipeline.api import bodies
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


TOKENS = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    '"a"',
    '"b"',
    '""',
    "1",
    "2.5",
    "9" * 30,
    "null",
    '"\\u0061"',
    " ",
    "\xe9",
]


@given(tokens=st.lists(st.sampled_from(TOKENS), max_size=12))
@example(tokens=["{", '"a"', ":", "1", ",", '"a"', ":", "1", "}"])
@example(tokens=["{", '"a"', ":", '"a"', ",", '"a"', ":", "{", "}", "}"])
def test_the_fast_way_says_the_same_as_the_careful_one(tokens: Sequence[str]) -> None:
    """Keys that come twice, long numbers, escapes: whatever it is, it is read alike or refused alike."""
    body = "".join(tokens).encode()
    fast = bodies._parse_plain(body)  # noqa: SLF001 - one of two ways, chosen inside
    assert fast is None or fast == bodies._parse_any(body)  # noqa: SLF001 - as above


@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """No bytes are a failure of ours."""
    assert _read_or_refused(body) in {True, 400}


def _read_or_refused(body: bytes) -> bool | int:
    try:
        return isinstance(parse(body), Document)
    except Problem as refused:
        return refused.status


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


def read(*parts: bytes, reader: BodyReader | None = None, caller: str = "a", **headers: str) -> bytes:
    """Read a caller's body that comes in these parts; an empty one is the client's leaving."""
    left = list(parts)

    async def receive() -> dict[str, Any]:
        part = left.pop(0)
        if not part:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    lines = {
        "content-type": "application/json",
        **{name.replace("_", "-"): text for name, text in headers.items()},
    }

    async def play() -> bytes:
        async with (reader or BodyReader()).read(
            {name: [text] for name, text in lines.items()}, receive, caller
        ) as body:
            return body

    return asyncio.run(play())


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
    assert read(b'{"a": "b", ', b'"c": "d"}', content_type=kind) == b'{"a": "b", "c": "d"}'


def test_the_longest_body_is_taken() -> None:
    """1 MiB exactly."""
    half = b" " * (MAX_BYTES // 2)
    assert len(read(half, half, content_length=str(MAX_BYTES), content_encoding="identity")) == MAX_BYTES


def test_a_client_that_goes_is_no_body() -> None:
    """Half a body is never taken for a whole one."""
    with pytest.raises(ClientDisconnect):
        read(b"{}", b"")


def test_only_so_much_of_one_caller_is_held_at_once() -> None:
    """Past its share it is told to come again; what is done with, however it ended, makes room."""
    reader = BodyReader(most=1000)
    for _ in range(3):
        with pytest.raises(Problem) as refused:
            read(b" " * 200, b" " * 100, reader=reader)
        assert refused.value.status == 429
        assert refused.value.headers["Retry-After"] == "1"
        with pytest.raises(ClientDisconnect):
            read(b" " * 200, b"", reader=reader)
        assert len(read(b" " * 250, reader=reader)) == 250


def test_who_holds_much_shuts_nobody_out() -> None:
    """One caller at its bound leaves room for others; all together have a bound as well."""
    reader = BodyReader(most=1000)

    async def statuses(*callers: str) -> list[int]:
        """What each of these callers is told, whose bodies are all held at once."""

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b" " * 240, "more_body": False}

        headers = {"content-type": ["application/json"]}
        told = []
        async with contextlib.AsyncExitStack() as stack:
            for caller in callers:
                try:
                    await stack.enter_async_context(reader.read(headers, receive, caller))
                    told.append(200)
                except Problem as problem:
                    told.append(problem.status)
        return told

    assert asyncio.run(statuses("a", "a", "b", "a", "c")) == [200, 429, 200, 429, 200]
    assert asyncio.run(statuses("a", "b", "c", "d", "e")) == [200, 200, 200, 200, 503]
