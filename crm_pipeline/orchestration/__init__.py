"""Dagster: assets, jobs, schedules, sensors, checks and resources around the sync."""
