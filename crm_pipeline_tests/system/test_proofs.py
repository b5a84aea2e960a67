"""Real processes against a real socket: killed, cut off, run twice at once, or left with nothing to do.

`tools/prove.py` runs the same proofs in full size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Protocol

import pytest

from crm_pipeline_tests.system import proofs
from crm_pipeline_tests.system.stage import Stage, crm_of, on_stage

RANDOM_SEED = 20_250_101


class MakeStage(Protocol):
    """A stage with so many contacts in the CRM."""

    def __call__(self, contacts: int, *, batch: int = 0, lookup: bool = True) -> Stage:
        """Set it up; the options are those of ``on_stage``."""


@pytest.fixture
def stage(tmp_path: Path, database_url: str) -> Iterator[MakeStage]:
    """Set up the test's one stage, on both databases."""
    with ExitStack() as stack:

        def make(contacts: int, *, batch: int = 0, lookup: bool = True) -> Stage:
            crm = crm_of(contacts)
            return stack.enter_context(on_stage(tmp_path, database_url, crm, batch=batch, lookup=lookup))

        yield make


@pytest.fixture
def random() -> Random:
    """The same moments each time; the full proofs draw others."""
    return Random(RANDOM_SEED)


def assert_held(proof: proofs.Proof) -> None:
    """Every claim held; else show when processes were killed."""
    assert proof.wrong == [], proof.moments


def test_a_pull_may_be_killed_at_any_moment(stage: MakeStage, random: Random) -> None:
    """Four kills while reading and applying: all contacts are there once, and no lease is waited for."""
    assert_held(proofs.killed_pull(stage(3_000), 4, random))


@pytest.mark.parametrize("batch", [0, 10], ids=["single calls", "batches"])
def test_a_push_may_be_killed_at_any_moment(stage: MakeStage, random: Random, batch: int) -> None:
    """Four kills around writes while both sides are edited: no edit is lost, no record doubled."""
    assert_held(proofs.killed_push(stage(200, batch=batch), 150, 20, 4, random))


def test_a_push_may_be_killed_with_several_calls_in_flight(stage: MakeStage) -> None:
    """Three batches were written and none answered: each is found again, and nothing is written twice."""
    assert_held(proofs.killed_in_flight(stage(100, batch=10), 3))


@pytest.mark.parametrize("batch", [0, 10], ids=["single calls", "batches"])
def test_a_lost_reply_makes_no_twin(stage: MakeStage, batch: int) -> None:
    """Records were made and the replies cut: they are found again, by phone or by reading what is new."""
    assert_held(proofs.cut_replies(stage(30, batch=batch, lookup=not batch), 30))


def test_broken_records_stop_no_other(stage: MakeStage) -> None:
    """All good records land, each broken one is listed with its reason, and the exit code is 0."""
    assert_held(proofs.broken_records(stage(2_000), 100))


def test_what_is_in_sync_is_left_alone(stage: MakeStage) -> None:
    """Another sync, even one that reads everything, writes no row and calls no write."""
    assert_held(proofs.nothing_changed(stage(1_500, batch=100)))


def test_a_plain_update_is_one_call_with_one_field(stage: MakeStage) -> None:
    """Another program's UPDATE is noticed; the CRM hears of the changed field in one batch."""
    assert_held(proofs.plain_update(stage(200, batch=100), 60))


def test_two_syncs_at_once_write_each_change_once(stage: MakeStage, random: Random) -> None:
    """Ten times two processes on one database: both succeed, one after the other."""
    assert_held(proofs.two_at_once(stage(50, batch=100), 10, random))
