"""What a reading of everything holds in memory does not grow with what is read."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from crm_pipeline.sync.absence import Seen
from crm_pipeline_tests.sync.world import World


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Nothing is freed that is held in a circle."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
def test_pages_leave_nothing_that_python_has_to_look_for(world: World) -> None:
    """It looks rarely while rows are worked in bulk: what lay in circles until then would pile up."""
    world.crm.reads_by_modified = False
    for each in range(200):
        world.crm.put(phone=f"62811000{each:05d}@c.us", name=f"Contact {each}")
    world.sync()

    def left(page_size: int) -> int:
        world.crm.page_size = page_size
        gc.collect()
        world.sync()
        return gc.collect()

    left(100)
    assert left(10) == left(100)


@pytest.mark.parametrize("last_row", [0, 1, 7, 8, 1000])
def test_seen_is_what_was_listed_and_what_came_with_the_reading(last_row: int) -> None:
    """A record without a row was not listed, whatever else was."""
    seen = Seen(last_row)
    listed = set(range(1, last_row + 1, 3))
    seen.add([*listed, last_row + 5])
    assert {row for row in range(1, last_row + 1) if row in seen} == listed
    assert last_row + 1 in seen
    assert None not in seen
