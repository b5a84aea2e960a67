"""Which requests are repeated and after how long, for every possible answer."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline.connectors.repeats import asked_wait, may_repeat, retry_after

NOW = datetime(2026, 1, 31, 9, 0, tzinfo=UTC)


@given(st.one_of(st.text(), st.from_regex(r"\s*[-+]?[0-9]{0,30}(\.[0-9]*)?([eE][0-9]+)?\s*"), st.none()))
def test_any_retry_after_gives_a_wait(text: str | None) -> None:
    """Whatever stands there, the wait is a number from 0 up, never NaN; or it counts as absent."""
    wait = retry_after(text, NOW)
    assert wait is None or wait >= 0
    headers = {} if text is None else {"Retry-After": text}
    assert asked_wait(429, headers, NOW) >= 0


@given(st.integers(0, 10**9 - 1))
def test_seconds_are_taken_as_they_are(seconds: int) -> None:
    """Whole seconds mean themselves."""
    assert retry_after(str(seconds), NOW) == seconds


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)))  # noqa: DTZ001 - the zone is put on below
def test_dates_are_differences(moment: datetime) -> None:
    """An HTTP date means the time until then, nothing when it is past."""
    then = moment.replace(microsecond=0, tzinfo=UTC)
    expected = max(0.0, (then - NOW).total_seconds())
    assert retry_after(format_datetime(then, usegmt=True), NOW) == expected


@pytest.mark.parametrize(
    "text,wait",
    [
        ("120", 120.0),
        (" 5 ", 5.0),
        ("1.9", 1.0),
        ("-1", 0.0),
        ("-99999999999", None),
        ("99999999999", math.inf),
        ("NaN", None),
        ("Infinity", None),
        ("1e3", None),
        ("tomorrow", None),
        ("Sat, 31 Jan 2026 09:00:30 GMT", 30.0),
        ("Saturday, 31-Jan-26 09:00:30 GMT", 30.0),
        ("Sat Jan 31 09:00:30 2026", 30.0),
        ("Sat, 31 Jan 2026 08:00:00 GMT", 0.0),
        ("Sat, 99 Jan 2026 08:00:00 GMT", None),
    ],
)
def test_forms_of_retry_after(text: str, wait: float | None) -> None:
    """Seconds and the three forms of an HTTP date are read; nonsense counts as absent."""
    assert retry_after(text, NOW) == wait


@given(st.sampled_from(["POST", "PUT", "PATCH", "DELETE"]), st.integers(100, 599))
def test_writes_are_repeated_only_on_proof(method: str, status: int) -> None:
    """No write is repeated but after 425, 429, or 503 with Retry-After."""
    assert may_repeat(method, status, {}) == (status in {425, 429})
    assert may_repeat(method, status, {"Retry-After": "1"}) == (status in {425, 429, 503})
