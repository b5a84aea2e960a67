"""Days: the partitions of what comes in, and which of them a run is about."""

from __future__ import annotations

from datetime import UTC, datetime, time

import dagster as dg

from crm_pipeline.orchestration.loaded import SETTINGS

DAYS = dg.DailyPartitionsDefinition(
    datetime.combine(SETTINGS.external_crm_first_day, time()), timezone="UTC", end_offset=1
)
"""Days in UTC. The offset adds the day that has not ended, which most runs are about."""


def window(context: dg.AssetExecutionContext) -> tuple[datetime, datetime] | None:
    """Return the time that the run's partitions span; None for a run without partitions."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return None
    window = context.partition_time_window
    return window.start, window.end


def days_to_read(since: datetime | None, now: datetime) -> tuple[str, str]:
    """First and last partition of a run about what came since; only today's when that is not known."""
    today = now.astimezone(UTC).date()
    first = today if since is None else min(since.astimezone(UTC).date(), today)
    return max(first, DAYS.start.date()).isoformat(), today.isoformat()


def tags_of_days(since: datetime | None, now: datetime) -> dict[str, str]:
    """Tags that make one run of all these days, so that each of them shows as read."""
    first, last = days_to_read(since, now)
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
