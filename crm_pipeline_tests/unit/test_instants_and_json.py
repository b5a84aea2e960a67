"""Instants and JSON: one text for one moment, and no document lost to one odd character."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline import instants, jsonio

ZONES = st.builds(lambda minutes: timezone(timedelta(minutes=minutes)), st.integers(-14 * 60, 14 * 60))
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES)  # noqa: DTZ001 - as asked


def test_the_clock_is_aware_and_in_utc() -> None:
    """A naive time is never made."""
    assert instants.now().utcoffset() == timedelta(0)


@given(moment=MOMENTS)
def test_a_moment_survives_being_written(moment: datetime) -> None:
    """To the microsecond, from the year 1 to 9999, in any zone."""
    text = instants.to_text(moment)
    assert instants.from_text(text) == moment
    assert instants.to_text(instants.from_text(text)) == text
    assert instants.from_text(text).tzinfo is UTC


@given(one=MOMENTS, other=MOMENTS)
def test_text_order_is_time_order(one: datetime, other: datetime) -> None:
    """Databases without a time type sort and compare instants as text."""
    assert (one < other) == (instants.to_text(one) < instants.to_text(other))
    assert len(instants.to_text(one)) == len("2026-01-31T09:00:00.000000Z")


def test_a_naive_time_is_no_instant_to_write_but_utc_to_read() -> None:
    """Our programs must say the zone; other programs' SQL writes UTC, as the column says."""
    with pytest.raises(ValueError, match="naive"):
        instants.to_text(datetime(2026, 1, 31))  # noqa: DTZ001 - the point
    assert instants.from_text("2026-01-31 09:00:00") == datetime(2026, 1, 31, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "soon", "2026-02-30", "0001-01-01T00:00:00+07:00", "9999-12-31T23:59:59-07:00", "0000-01-01"]
)
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    """One kind of error for all that is wrong, so that no reader misses one."""
    with pytest.raises(ValueError, match=r"."):
        instants.from_text(text)


@pytest.mark.parametrize("year, hours_east", [(1, 7), (9999, -7)])
def test_a_moment_outside_the_years_in_utc_cannot_be_written(year: int, hours_east: int) -> None:
    """The ends of time, to the east or the west of Greenwich."""
    month, day, hour = (1, 1, 0) if year == 1 else (12, 31, 23)
    moment = datetime(year, month, day, hour, tzinfo=timezone(timedelta(hours=hours_east)))
    with pytest.raises(OverflowError):
        instants.to_text(moment)


# JSON.

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=8)
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)


@given(document=DOCUMENTS)
def test_a_document_survives_being_written(document: Any) -> None:
    """Lone surrogates and NUL included; integers past 64 bits may lose digits, but not their size."""
    text = jsonio.dumps(document)
    read = jsonio.loads(text)
    assert _rounded(read) == _rounded(document)
    assert jsonio.content_hash(text) == jsonio.content_hash(jsonio.dumps(document))
    text.encode()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(value) if isinstance(value, int) and not -(2**63) <= value < 2**64 else value


@given(
    pairs=st.lists(
        st.tuples(st.text(st.characters(), max_size=4), SCALARS), max_size=5, unique_by=lambda p: p[0]
    )
)
def test_the_order_of_keys_is_no_matter(pairs: list[tuple[str, Any]]) -> None:
    """Equal documents give equal text, so that equal content has one hash."""
    assert jsonio.dumps(dict(pairs)) == jsonio.dumps(dict(reversed(pairs)))


@given(document=DOCUMENTS)
def test_any_json_is_read_like_the_standard_parser_does(document: Any) -> None:
    """Escaped or not, as text or as bytes."""
    text = json.dumps(document)
    expected = _rounded(json.loads(text))
    assert _rounded(jsonio.loads(text)) == expected
    assert _rounded(jsonio.loads(text.encode())) == expected


def test_a_half_character_is_kept_for_validation_to_name() -> None:
    """One such name must not cost a page of records."""
    assert jsonio.loads(r'[{"name": "a\ud800b"}, {"name": "c"}]') == [{"name": "a\ud800b"}, {"name": "c"}]
    assert jsonio.loads(b'["\xed\xa0\x80"]') == ["\ud800"]


def test_equal_hashes_are_of_equal_text() -> None:
    """A hash is of fixed length and differs with any character."""
    assert jsonio.content_hash('{"a":1}') != jsonio.content_hash('{"a":2}')
    assert len(jsonio.content_hash("")) == 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "nothing",
        "{",
        '{"a": 1,}',
        "NaN",
        "[Infinity]",
        "-Infinity",
        '"\\ud800" 1e999',
        '["\\ud800", NaN]',
        "9" * 5000,
        "[" * 100_000,
        '{"a":' * 100_000,
        b"\xff",
        "'a'",
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_what_is_not_json_is_a_value_error(text: str | bytes) -> None:
    """Not a number that is none, not a depth that exhausts the stack: one kind of error for all."""
    with pytest.raises(ValueError, match=r"."):
        jsonio.loads(text)


def test_a_number_too_big_for_any_type_stays_as_it_was_written() -> None:
    """It is for validation to reject its record by name; the others on the page are read."""
    assert jsonio.loads('[{"price": -1e999}, {"price": 1}]') == [{"price": "-1e999"}, {"price": 1}]
