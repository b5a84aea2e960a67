"""What is gathered for the rules, from either database."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from crm_pipeline.connection import Connection
from crm_pipeline.store import alerts, observations, state
from crm_pipeline.store.engine import reading, writing
from crm_pipeline.sync.context import lease_held
from crm_pipeline.sync.evidence import Evidence, Part, Witness
from crm_pipeline.sync.forget import forget
from crm_pipeline.sync.mapping import FieldMapping
from crm_pipeline.sync.sample import NAME, SIZE, Sample
from crm_pipeline.sync.shape import Shape
from crm_pipeline_tests.sync.world import World

ONE = "6281100000001@c.us"


def _gather(world: World, part: Part | None = None, *, look: bool = True) -> Evidence:
    mapping = FieldMapping(world.connection)
    witness = Witness(world.engine, world.connection, mapping, mapping, look)
    return witness.gather(world.crm.clock(), timedelta(minutes=30), part, polling=True)


def _fill(world: World, number: int) -> None:
    for each in range(number):
        world.crm.put(phone=f"62811{each:08d}", name=f"N{each}", notes="n", status="prospect")
    world.sync()


def test_an_empty_database_has_nothing_to_say(world: World) -> None:
    """No run yet: no figures, and nothing fails."""
    seen = _gather(world)
    assert (seen.reads.last_read_at, seen.shape, seen.sample) == (None, Shape(), Sample())
    assert (seen.written, seen.came_back, seen.unknown_choices) == (0, 0, 0)


def test_what_was_never_read_began_with_the_first_run_or_look(world: World) -> None:
    """The earlier of the two; once the CRM was read, that time says all."""
    now = world.crm.clock()
    assert _gather(world).reads.began_at is None
    with writing(world.engine) as tx:
        alerts.look(tx, "default", now)
        alerts.look(tx, "default", now + timedelta(hours=1))
    assert _gather(world).reads.began_at == now
    with writing(world.engine) as tx:
        state.start_run(tx, "default", "pull", "run", now - timedelta(days=1))
    assert _gather(world).reads.began_at == now - timedelta(days=1)
    _fill(world, 1)
    assert (_gather(world).reads.began_at, _gather(world).reads.last_read_at is None) == (None, False)


def test_the_sample_takes_turns_and_finds_what_was_written_past_the_trigger(world: World) -> None:
    """All pairs have their turn; one that differs is looked at each time, until it is mended."""
    _fill(world, 2 * SIZE + 10)
    assert [_gather(world).sample for _ in range(3)] == [Sample(SIZE), Sample(SIZE), Sample(10)]
    world.sql("UPDATE contacts SET notes = 'silent' WHERE id = '6281100000003@c.us'")
    world.sql("UPDATE contacts SET pushed_version = row_version")
    looks = [_gather(world).sample for _ in range(3)]
    assert looks == [Sample(SIZE, 1), Sample(SIZE + 1, 1), Sample(11, 1)]
    assert _gather(world, look=False).sample == Sample(11, 1)
    world.sql("UPDATE contacts SET notes = 'n' WHERE id = '6281100000003@c.us'")
    world.sql("UPDATE contacts SET pushed_version = row_version")
    assert _gather(world).sample.differing == 0


def test_what_waits_is_no_difference(world: World) -> None:
    """Edits on the way, fresh pushes and conflicts are the sync's daily work."""
    world.connection = Connection.model_validate({"merge": {"policy": "manual"}})
    _fill(world, 5)
    world.sql("UPDATE contacts SET notes = 'edited' WHERE id < '6281100000003'")
    assert _gather(world).sample == Sample(2)
    world.sync()
    assert _gather(world).sample == Sample(5)
    key = next(iter(world.crm.records))
    world.crm.put(key, notes="theirs")
    world.sql("UPDATE contacts SET notes = 'ours' WHERE id = '6281100000000@c.us'")
    world.sync()
    assert _gather(world).sample.differing == 0


def test_forgetting_a_person_leaves_no_place_in_the_sample(world: World) -> None:
    """Where the sample goes on is a record's id."""
    _fill(world, SIZE + 10)
    _gather(world)
    context = world.context()
    with lease_held(context):
        forget(context, {ONE})
    with reading(world.engine) as tx:
        assert observations.load(tx, "default", NAME) == {}


def test_an_unknown_choice_is_counted_apart(world: World) -> None:
    """A deal status that no synonym knows; a number that is none is another matter."""
    world.crm.put(phone="628110000001", status="dunno")
    world.crm.put(phone="628110000002", status="what", capacity="many")
    world.crm.put(phone="628110000003", capacity="many")
    world.sync()
    world.receive({"phone": "628110000004", "status": "hm"})
    assert _gather(world, "connection").unknown_choices == 3


def test_a_renamed_field_is_found_over_syncs(world: World) -> None:
    """The CRM sends its records without a field that all of them had."""
    _fill(world, 30)
    assert _gather(world).shape.vanished == ()
    for record in world.crm.records.values():
        record["label"] = record.pop("name")
    for key in list(world.crm.records):
        world.crm.put(key, notes="touched")
    world.sync()
    assert _gather(world, look=False).shape.vanished == ()
    seen = _gather(world)
    assert seen.shape.vanished == ("nama",)
    assert _gather(world).shape == seen.shape


def test_writes_that_come_back_changed_are_counted(world: World) -> None:
    """A workflow of the CRM edits two of the three fields that were just written."""
    _fill(world, 3)
    world.sql("UPDATE contacts SET notes = 'written'")
    world.sync()
    for key in list(world.crm.records)[:2]:
        world.crm.put(key, notes="by a workflow")
    world.crm.put(next(iter(world.crm.records)), name="never written by us")
    world.sync()
    seen = _gather(world, "push")
    assert (seen.written, seen.came_back) == (3, 2)


def test_the_watermark_is_held_against_what_was_read(world: World) -> None:
    """After a complete pull it stands at the newest time that was read."""
    _fill(world, 3)
    world.crm.clock.pass_by(minutes=10)
    world.crm.own_clock.pass_by(minutes=10)
    world.sync()
    reads = _gather(world, "connection").reads
    assert reads.watermark is not None
    assert reads.newest == reads.watermark
    with reading(world.engine) as tx:
        assert tx.execute(sa.text("SELECT count(*) FROM observations")).scalar_one() == 1
