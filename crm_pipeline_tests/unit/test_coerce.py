"""Coercion: what a field takes, what it refuses and why, and when two values are the same."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline import instants, jsonio
from crm_pipeline.contact import FieldType
from crm_pipeline.sync.coerce import MAX_INTEGER, MAX_TEXT, NotAValueError, Spec, Value, coercer

JAKARTA = "Asia/Jakarta"
STATUS = Spec(
    FieldType.CHOICE,
    choices=("prospect", "To Do", "Straße"),
    synonyms={"negotiation": "prospect", " Closed Won ": "To Do"},
)


def read(kind: FieldType, value: Any, **spec: Any) -> Value:
    """Coerce one value."""
    return coercer(Spec(kind, **spec))(value)


def reason(kind: FieldType, value: Any, **spec: Any) -> str:
    """Why a value is refused."""
    with pytest.raises(NotAValueError) as refused:
        read(kind, value, **spec)
    return str(refused.value)


ACCEPTED: Mapping[FieldType, list[tuple[Any, Value]]] = {
    FieldType.TEXT: [
        (None, None),
        ("", ""),
        (" Budi\n", " Budi\n"),
        ("\x07\ufffe\U0001f600", "\x07\ufffe\U0001f600"),
        ("5_0", "5_0"),
        (0, "0"),
        (150000, "150000"),
        (62812.0, "62812"),
        (-1.5, "-1.5"),
        (MAX_INTEGER, str(MAX_INTEGER)),
        ("x" * MAX_TEXT, "x" * MAX_TEXT),
    ],
    FieldType.INTEGER: [
        (None, None),
        ("", None),
        (" \t", None),
        (0, 0),
        ("0", 0),
        ("-0", 0),
        ("150000", 150000),
        (9_007_199_254_740_991.0, 9_007_199_254_740_991),
        (9_007_199_254_740_993, 9_007_199_254_740_993),
        (" +150000 ", 150000),
        ("0150000", 150000),
        ("150000.0", 150000),
        ("150000.00", 150000),
        (150000.0, 150000),
        (-0.0, 0),
        (1e5, 100000),
        (9_223_372_036_854_775_807, MAX_INTEGER),
        ("9223372036854775807", MAX_INTEGER),
    ],
    FieldType.NUMBER: [
        (None, None),
        ("", None),
        (0, 0.0),
        ("0", 0.0),
        (5, 5.0),
        ("-1.25", -1.25),
        ("1.5", 1.5),
        (" 150.000 ", 150.0),
        (MAX_INTEGER, float(MAX_INTEGER)),  # rounded up
        (float(MAX_INTEGER), float(MAX_INTEGER)),
    ],
    FieldType.BOOLEAN: [
        (None, None),
        ("", None),
        (" ", None),
        (True, True),
        (False, False),
        (1, True),
        (0, False),
        (1.0, True),
        ("TRUE", True),
        ("false", False),
        ("Yes", True),
        (" no ", False),
        ("1", True),
        ("0", False),
    ],
    FieldType.INSTANT: [
        (None, None),
        ("", None),
        ("  ", None),
        ("2026-01-31T09:00:00Z", "2026-01-31T09:00:00.000000Z"),
        ("2026-01-31T09:00:00.123456Z", "2026-01-31T09:00:00.123456Z"),
        ("2026-01-31T09:00:00.000+0000", "2026-01-31T09:00:00.000000Z"),
        ("2026-01-31T09:00:00+07:00", "2026-01-31T02:00:00.000000Z"),
        ("2026-01-31 09:00:00+00", "2026-01-31T09:00:00.000000Z"),
        ("2026-01-31T09:00", "2026-01-31T09:00:00.000000Z"),
        # As long as the usual spelling; Python's parser has a meaning for each.
        ("2026-01-31T09:00.00Z", "2026-01-31T09:00:00.000000Z"),
        ("2026-01-31T09.12345Z", "2026-01-31T09:00:00.123450Z"),
        ("2026-01-31T09003400Z", "2026-01-31T09:00:34.000000Z"),
        ("2026-01-31", "2026-01-31T00:00:00.000000Z"),
        ("20260131", "2026-01-31T00:00:00.000000Z"),
        (" 20260131T090000Z ", "2026-01-31T09:00:00.000000Z"),
        ("1769850000", "2026-01-31T09:00:00.000000Z"),
        (1769850000123, "2026-01-31T09:00:00.123000Z"),
        ("1769850000123", "2026-01-31T09:00:00.123000Z"),
        (1769850000.5, "2026-01-31T09:00:00.500000Z"),
        (-1000000000, "1938-04-24T22:13:20.000000Z"),
        (100_000_000, "1973-03-03T09:46:40.000000Z"),
        (99_999_999_999, "5138-11-16T09:46:39.000000Z"),
        (100_000_000_000, "1973-03-03T09:46:40.000000Z"),  # from here on, milliseconds
        (9_999_999_999_999, "2286-11-20T17:46:39.999000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ("2024-02-29", "2024-02-29T00:00:00.000000Z"),
        (datetime(2026, 1, 31, 9, tzinfo=timezone(timedelta(hours=7))), "2026-01-31T02:00:00.000000Z"),
    ],
    FieldType.WHATSAPP_ID: [
        (None, None),
        ("", None),
        (" ", None),
        ("0812-3456-789", "628123456789@c.us"),
        (628123456789, "628123456789@c.us"),
        (8123456789, "628123456789@c.us"),
        (628123456789.0, "628123456789@c.us"),
        ("123456789012345@lid", "123456789012345@lid"),
    ],
}
NO_TIMES: list[Any] = [
    "soon",
    "31/01/2026",
    "2026-02-30",
    "2023-02-29",
    "2026-01",
    "2026-W05-6",
    "2026-01-31T25:00:00Z",
    "2026-01-31T09:00:60Z",
    "2026-01-31T09:00:00+25:00",
    "2026-01-31x09:00",
    "2026-01-31709:00",
    "2026-01-31\x0009:00",
    "2026-01-31\ud80009:00",
    "\uff12\uff10\uff12\uff16-01-31",
    "20260131090000",  # neither a time in milliseconds nor one without punctuation
    "0000-01-01",
    "10000-01-01",
    "0001-01-01T00:00:00+07:00",
    "9999-12-31T23:59:59-07:00",
    0,
    "0",
    5,
    20260131,
    99_999_999,
    10_000_000_000_000,
    1769850000123456,
    -99_999_999_999,
    float("nan"),
    float("inf"),
    1e300,
    10**5000,
    True,
    [],
    {"date": "2026-01-31"},
]
REFUSED: Mapping[FieldType, list[tuple[Any, str]]] = {
    FieldType.TEXT: [
        (True, "is true/false, not text"),
        ([], "is a list, not text"),
        ({"a": 1}, "is an object, not text"),
        (b"x", "is something else, not text"),
        ("a\x00b", "holds a NUL character"),
        ("a\ud800b", "holds half a character (a lone surrogate)"),
        ("\udfff\ud800", "holds half a character (a lone surrogate)"),
        ("x" * (MAX_TEXT + 1), "is longer than 100000 characters"),
        (float("nan"), "is a number out of range"),
        (float("inf"), "is a number out of range"),
        (1.2345678901234568e29, "is a number out of range"),
        (10**5000, "is a number out of range"),
    ],
    FieldType.INTEGER: [
        ("abc", "is not a whole number"),
        ("1.5", "is not a whole number"),
        ("5_0", "is not a whole number"),
        ("150.000", "is not a whole number"),
        ("150,000", "is not a whole number"),
        ("1.500.000", "is not a whole number"),
        ("Rp 150000", "is not a whole number"),
        ("1e5", "is not a whole number"),
        ("0x10", "is not a whole number"),
        ("\uff15\uff10", "is not a whole number"),
        ("\u0665", "is not a whole number"),
        ("\u00b2", "is not a whole number"),
        ("5\x00", "is not a whole number"),
        ("--5", "is not a whole number"),
        ("5\ud800", "is not a whole number"),
        ("9" * 5000, "is not a whole number"),
        (1.5, "is a number, not a whole number"),
        (float("nan"), "is a number, not a whole number"),
        (float("-inf"), "is a number, not a whole number"),
        (True, "is true/false, not a whole number"),
        ([150000], "is a list, not a whole number"),
        ({}, "is an object, not a whole number"),
        (-1, "is negative"),
        ("-1", "is negative"),
        (-1.0, "is negative"),
        (9_223_372_036_854_775_808, "does not fit into 64 bits"),
        ("9223372036854775808", "does not fit into 64 bits"),
        (float(MAX_INTEGER), "does not fit into 64 bits"),  # a float rounds it up
        (1e300, "does not fit into 64 bits"),
        (9_007_199_254_740_992.0, "has too many digits for a number with a decimal point"),
        (9e18, "has too many digits for a number with a decimal point"),
        ("9" * 100, "does not fit into 64 bits"),
        (10**5000, "does not fit into 64 bits"),
    ],
    FieldType.NUMBER: [
        ("abc", "is not a number"),
        ("nan", "is not a number"),
        ("inf", "is not a number"),
        ("1,5", "is not a number"),
        ("1_0.5", "is not a number"),
        ("\uff11", "is not a number"),
        (float("nan"), "is out of range"),
        (float("inf"), "is out of range"),
        ("9" * 20, "is out of range"),
        (10**5000, "is out of range"),
        (False, "is true/false, not a number"),
        ([], "is a list, not a number"),
    ],
    FieldType.BOOLEAN: [
        ("maybe", "is text, not true or false"),
        (2, "is a number, not true or false"),
        (10**5000, "is a number, not true or false"),
        (float("nan"), "is a number, not true or false"),
        ([], "is a list, not true or false"),
    ],
    FieldType.INSTANT: [(value, "is not a date and time") for value in NO_TIMES],
    FieldType.WHATSAPP_ID: [
        ("abc", "is not a WhatsApp id or phone number"),
        ("1@g.us", "is a group, not a contact"),
        ("12345", "is not a possible phone number"),
        (-628123456789, "is not a WhatsApp id or phone number"),
        (10**5000, "is a number out of range"),
        (float("nan"), "is a number out of range"),
        (True, "is true/false, not a WhatsApp id or phone number"),
        (["628123456789"], "is a list, not a WhatsApp id or phone number"),
    ],
}


def rows(table: Mapping[FieldType, list[tuple[Any, Any]]]) -> list[Any]:
    """Cases of a table, named by type and value."""
    return [
        pytest.param(kind, value, result, id=f"{kind}-{ascii(value) if _short(value) else type(value)}")
        for kind, cases in table.items()
        for value, result in cases
    ]


def _short(value: Any) -> bool:
    return len(value) < 40 if isinstance(value, str) else not isinstance(value, int) or value < 10**40


@pytest.mark.parametrize("kind, value, expected", rows(ACCEPTED))
def test_a_value_that_fits(kind: FieldType, value: Any, expected: Value) -> None:
    """Each type takes what can mean only one thing, and 0 and "" are values."""
    found = read(kind, value)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("kind, value, told", rows(REFUSED))
def test_a_value_that_does_not_fit(kind: FieldType, value: Any, told: str) -> None:
    """It is refused with a reason for people, which repeats nothing of it."""
    assert reason(kind, value) == told


@pytest.mark.parametrize(
    "value, expected",
    [
        (None, None),
        ("", None),
        ("  ", None),
        ("prospect", "prospect"),
        (" PROSPECT ", "prospect"),
        ("to do", "To Do"),
        ("STRASSE", "Straße"),
        ("Negotiation", "prospect"),
        ("CLOSED WON", "To Do"),
    ],
)
def test_a_choice_is_known_by_name_or_synonym_in_any_case(value: Any, expected: Value) -> None:
    """What is stored is the one word readers of the table know."""
    assert coercer(STATUS)(value) == expected


@pytest.mark.parametrize(
    "value", ["won", "prospects", "pro spect", "\uff50rospect", "prospect\x00", "prospect\ud800"]
)
def test_an_unknown_choice_is_refused_by_naming_the_known(value: str) -> None:
    """It is neither stored nor taken for the default."""
    with pytest.raises(NotAValueError) as refused:
        coercer(STATUS)(value)
    assert str(refused.value) == "is not one of prospect, To Do, Straße or a known synonym"


@pytest.mark.parametrize("value", [0, 1, True, ["prospect"], {"value": "prospect"}])
def test_a_choice_is_text(value: Any) -> None:
    """A number or a list chooses nothing."""
    with pytest.raises(NotAValueError, match="not one of the known values"):
        coercer(STATUS)(value)


@pytest.mark.parametrize(
    "zone, local, instant",
    [
        (JAKARTA, "2026-01-31T09:00:00", "2026-01-31T02:00:00.000000Z"),
        (JAKARTA, "2026-01-31", "2026-01-30T17:00:00.000000Z"),
        (JAKARTA, "2026-01-31T09:00:00Z", "2026-01-31T09:00:00.000000Z"),
        (JAKARTA, 1769850000, "2026-01-31T09:00:00.000000Z"),
        (JAKARTA, datetime(2026, 1, 31, 9), "2026-01-31T02:00:00.000000Z"),  # noqa: DTZ001 - the point
        ("Europe/Berlin", "2026-01-31T09:00:00", "2026-01-31T08:00:00.000000Z"),
        ("Europe/Berlin", "2026-07-31T09:00:00", "2026-07-31T07:00:00.000000Z"),
        ("Europe/Berlin", "2026-03-29T02:30:00", "2026-03-29T01:30:00.000000Z"),  # skipped by the clocks
        ("Europe/Berlin", "2026-10-25T02:30:00", "2026-10-25T00:30:00.000000Z"),  # twice: the first
        ("America/New_York", "2026-10-25T02:30:00", "2026-10-25T06:30:00.000000Z"),
    ],
)
def test_a_time_without_a_zone_is_of_the_connections_zone(zone: str, local: Any, instant: str) -> None:
    """And one with a zone, or a number, is a moment already; the machine's own zone is no matter."""
    assert read(FieldType.INSTANT, local, zone=zone) == instant


@given(text=st.from_regex(r"2026-01-3[01]T09[0-9:.,]{0,8}(Z|[+-][0-9:]{2,5})?", fullmatch=True))
def test_whatever_is_read_as_a_moment_is_written_as_one(text: str) -> None:
    """One form for all, so that they sort and are equal where they are the same moment."""
    try:
        found = read(FieldType.INSTANT, text)
    except NotAValueError:
        return
    assert isinstance(found, str)
    assert instants.to_text(instants.from_text(found)) == found


def test_a_choice_with_blanks_around_it_is_not_read_from_one_that_has_them() -> None:
    """What is compared is without them, on both sides or on none."""
    assert reason(FieldType.CHOICE, " foo ", choices=(" Foo ",)).startswith("is not one of")


def test_a_time_out_of_all_years_in_utc_is_refused() -> None:
    """The first hours of year 1 in the east are year 0 in UTC, which no calendar here has."""
    assert reason(FieldType.INSTANT, "0001-01-01T05:00:00", zone=JAKARTA) == "is not a date and time"


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(MAX_INTEGER - 2, MAX_INTEGER + 2),
        st.floats(),
        st.text(st.characters(), max_size=12),
        st.from_regex(r"[+-]?[0-9]{1,22}(\.[0-9]{1,3})?", fullmatch=True),
        st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]{5,15}(Z|[+-][0-9:]{2,6})?)?", fullmatch=True),
        st.sampled_from(["yes", "To Do", "Negotiation", "0812 345 678", "1@g.us"]),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
SPECS = st.sampled_from([*(Spec(kind) for kind in FieldType if kind is not FieldType.CHOICE), STATUS])


@given(spec=SPECS, value=JSON)
def test_any_json_becomes_a_canonical_value_or_a_reason(spec: Spec, value: Any) -> None:
    """No other exception; a canonical value is a JSON scalar, and its own canonical value."""
    coerce = coercer(spec)
    try:
        found = coerce(value)
    except NotAValueError:
        return
    assert found is None or type(found) in {str, int, float, bool}
    assert jsonio.loads(jsonio.dumps(found)) == found
    assert coerce(found) == found


@given(number=st.integers(0, MAX_INTEGER))
def test_a_number_is_a_number_also_as_text(number: int) -> None:
    """``"150000"`` and ``150000`` are one price, and no digit is lost up to 64 bits."""
    assert read(FieldType.INTEGER, str(number)) == number
    assert read(FieldType.INTEGER, number) == number
    assert read(FieldType.INTEGER, f" {number}.0") == number


@given(moment=st.datetimes(datetime(1974, 1, 1), datetime(2280, 1, 1)))  # noqa: DTZ001 - made aware below
def test_one_moment_has_one_value_however_it_is_told(moment: datetime) -> None:
    """Any zone, text or number of seconds or milliseconds: instants compare as plain text."""
    instant = moment.replace(microsecond=0, tzinfo=UTC)
    told: set[str | int] = {
        instant.isoformat(),
        instant.astimezone(timezone(timedelta(hours=9, minutes=30))).isoformat(),
        instant.strftime("%Y-%m-%d %H:%M:%S"),
        int(instant.timestamp()),
        int(instant.timestamp()) * 1000,
        str(int(instant.timestamp())),
    }
    assert {read(FieldType.INSTANT, each) for each in told if _unambiguous(each)} == {
        instant.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    }


def _unambiguous(told: str | int) -> bool:
    """Milliseconds of the years before 1974 read as seconds; nothing here is as old."""
    return isinstance(told, str) or told >= 100_000_000
