"""Fixtures of the sync tests."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import Engine

from crm_pipeline_tests.sync.world import World


@pytest.fixture
def world(engine: Engine) -> World:
    """An empty world, on both databases."""
    return World(engine)
