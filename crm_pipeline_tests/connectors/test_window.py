"""Windows as query parameters: in the CRM's format and zone, and never too narrow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline.connection import Listing
from crm_pipeline.connectors.base import Window
from crm_pipeline.connectors.window import window_params

MOMENT = datetime(2026, 1, 31, 9, 0, 0, 500, tzinfo=UTC)


def params(rule: dict[str, str], since: datetime | None, until: datetime | None) -> dict[str, str]:
    """Parameters of a listing filtered both ways by the same rule."""
    listing = Listing.model_validate(
        {"modified_since": {"param": "from", **rule}, "modified_before": {"param": "to", **rule}}
    )
    return window_params(listing, Window(since, until))


@pytest.mark.parametrize(
    "rule,since,until",
    [
        ({}, "2026-01-31T09:00:00.000500Z", "2026-01-31T09:00:00.000500Z"),
        ({"zone": "Asia/Jakarta"}, "2026-01-31T16:00:00.000500+07:00", "2026-01-31T16:00:00.000500+07:00"),
        ({"format": "epoch"}, "1769850000", "1769850001"),
        ({"format": "epoch_ms"}, "1769850000000", "1769850000001"),
        ({"format": "%Y-%m-%d %H:%M:%S"}, "2026-01-31 09:00:00", "2026-01-31 09:00:01"),
        ({"format": "%Y-%m-%d", "zone": "Asia/Jakarta"}, "2026-01-31", "2026-02-01"),
        ({"template": "modified gt {time}"}, *["modified gt 2026-01-31T09:00:00.000500Z"] * 2),
    ],
)
def test_formats(rule: dict[str, str], since: str, until: str) -> None:
    """Lower bounds are rounded down and upper bounds up, so that nothing falls between."""
    assert params(rule, MOMENT, MOMENT) == {"from": since, "to": until}


def test_open_ends_and_unknown_filters_say_nothing() -> None:
    """No bound, or no parameter for it: nothing is sent."""
    assert params({}, None, None) == {}
    assert window_params(Listing(), Window(MOMENT, MOMENT)) == {}


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1)),  # noqa: DTZ001 - the zone is put on below
    st.sampled_from(["%Y-%m-%d", "%d/%m/%Y %H:%M", "%Y%m%dT%H%M%S", "%Y-%m-%d %H", "%Y-%m-%dT%H:%M:%S.%f"]),
    st.sampled_from(["UTC", "Asia/Jakarta", "America/New_York"]),
)
def test_a_pattern_never_narrows_the_window(naive: datetime, pattern: str, zone: str) -> None:
    """What the CRM reads from the parameters always covers the window."""
    moment = naive.replace(tzinfo=UTC)
    said = params({"format": pattern, "zone": zone}, moment, moment)
    low, high = (
        datetime.strptime(said[name], pattern).replace(tzinfo=ZoneInfo(zone)) for name in ("from", "to")
    )
    assert low <= moment + timedelta(hours=1)  # an hour: clocks put back say one text for two moments
    assert high >= moment - timedelta(hours=1)
    assert high - low < timedelta(days=1, hours=2)
