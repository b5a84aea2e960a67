"""The settings that definitions are made of: first day, connection's name, push mode."""

from __future__ import annotations

from crm_pipeline.settings import load_settings

SETTINGS = load_settings()
"""Read once, when Dagster loads the code: a mistake shows as the load's error, naming the variable."""
