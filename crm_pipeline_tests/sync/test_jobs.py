"""Pushes by the CRM's own jobs: killed anywhere, each edit is written once and none is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from crm_pipeline import instants
from crm_pipeline.connection import FieldRule
from crm_pipeline.connectors import connect
from crm_pipeline.connectors.session import Exchange
from crm_pipeline.simulators.serve import running
from crm_pipeline.simulators.shelf import Row
from crm_pipeline.simulators.vendor import VendorCrm, VendorOptions
from crm_pipeline.simulators.vendors import SIMULATIONS
from crm_pipeline.store import state
from crm_pipeline.store.engine import reading, writing
from crm_pipeline.store.tables import contacts, intents, links, rejects
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.context import Context, lease_held
from crm_pipeline.sync.mapping import FieldMapping
from crm_pipeline.sync.pull import pull_new
from crm_pipeline.sync.push import push_changed
from crm_pipeline.sync.reports import Report
from crm_pipeline_tests.connectors.vendors import WIDE, preset
from crm_pipeline_tests.fakes import Crash

COUNT = 12
BAD = 3
"""Which contact is edited to what the CRM does not take."""


class Org(VendorCrm):
    """A Salesforce org that counts the writes to each of its records."""

    def __init__(self, *given: Any, **options: Any) -> None:
        """Nothing has been written yet."""
        self.edits: Counter[str] = Counter()
        super().__init__(*given, **options)

    def edit(self, record_id: str, /, **fields: Any) -> dict[str, Any]:
        """Count, and change."""
        if "Description" in fields:
            self.edits[str(fields["Description"])] += 1
        return super().edit(record_id, **fields)

    def create(self, /, **fields: Any) -> dict[str, Any]:
        """Count, and add."""
        self.edits[str(fields.get("Description"))] += 1
        return super().create(**fields)


class Scene:
    """An org, a database, and workers that may be killed after any answer."""

    def __init__(self, engine: Engine, org: Org, url: str) -> None:
        self.engine, self.org = engine, org
        self.connection = preset("salesforce", url, writing={"bulk_from": 5}, listing={"overlap_seconds": 0})

    def run(self, *, push: bool = True, pull: bool = True, killed_after: int = 0) -> Report | None:
        """Be one worker: pull, apply, push; dead after so many answers where a number is given."""
        answers = 0

        def observe(_exchange: Exchange) -> None:
            nonlocal answers
            answers += 1
            if answers == killed_after:
                raise Crash

        mapping = FieldMapping(self.connection)
        connector = connect(self.connection, "sim-key", sleep=lambda _: None, observe=observe)
        context = Context(
            self.engine, self.connection, lambda: connector, mapping, mapping, "run", instants.now
        )
        try:
            with lease_held(context):
                with context.write() as tx:
                    state.ensure(tx, context.name, polling=False)
                if pull:
                    pull_new(context)
                    apply_landed(context)
                return push_changed(context, just_pulled=pull) if push else None
        finally:
            connector.close()

    def edit(self, word: str) -> None:
        """Another program edits every contact, one of them wrongly, and adds seven."""
        with writing(self.engine) as tx:
            known = tx.execute(sa.select(contacts.c.id).order_by(contacts.c.id)).scalars().all()
            for number, row in enumerate(known):
                notes = "x" * 40_000 if number == BAD else f"{word} {number}"
                tx.execute(contacts.update().where(contacts.c.id == row).values(notes=notes))
            for number in range(7):
                new = {
                    "id": f"62811777000{number}@c.us",
                    "nama": f"Baru {number}",
                    "notes": f"new {word} {number}",
                }
                tx.execute(contacts.insert().values(**new))

    def rows(self) -> list[Row]:
        """The org's records."""
        return self.org.shelf.all().cut(0, len(self.org.shelf))

    def open_intents(self) -> int:
        """Writes nobody knows the end of."""
        with reading(self.engine) as tx:
            query = sa.select(sa.func.count()).where(intents.c.state == "open")
            return int(tx.execute(query).scalar_one())

    def differences(self) -> list[str]:
        """Contacts that do not equal their record, but the one that was refused."""
        with reading(self.engine) as tx:
            refused = set(tx.execute(sa.select(rejects.c.key)).scalars())
            pairs = {row.external_id: row.contact_id for row in tx.execute(sa.select(links))}
            notes = {row.id: row.notes for row in tx.execute(sa.select(contacts))}
        there = {pairs.get(row.id, ""): self.org.fields(row).get("Description") for row in self.rows()}
        assert len(refused) == 1
        return [key for key, value in notes.items() if key not in refused and there.get(key) != value]


@contextmanager
def scene(engine: Engine, **options: Any) -> Iterator[Scene]:
    """Set it up: everything is pulled, and then edited here."""
    simulation = SIMULATIONS["salesforce"]
    made = VendorOptions(**{"burst": WIDE, "job_seconds": 0.0, **options})
    org = Org.seeded(simulation.vendor, COUNT, options=made)
    with running(simulation.app(org)) as url:
        made_scene = Scene(engine, org, url)
        made_scene.run(push=False)
        made_scene.edit("noted")
        yield made_scene


def test_a_large_push_is_two_jobs(quick_engine: Engine) -> None:
    """One for changes, one for creates; the refused row is told, and the rest is quiet afterwards."""
    with scene(quick_engine) as here:
        before = here.org.calls.copy()
        report = here.run()
        assert report is not None
        figures = report.counts
        assert (figures.updated, figures.created, figures.rejected, report.pending) == (COUNT - 1, 7, 1, 0)
        made = here.org.calls - before
        assert made == {
            "query": 1,
            "job_open": 2,
            "job_upload": 2,
            "job_close": 2,
            "job_look": 2,
            "job_results": 3,
        }
        assert here.differences() == []
        assert set(here.org.edits.values()) == {1}
        quiet = here.run()
        assert quiet is not None
        assert (quiet.counts.changed, quiet.api_calls) == (0, 0)


@pytest.mark.parametrize("answers", range(1, 13))
def test_killed_after_any_answer_nothing_is_written_twice_or_lost(
    sqlite_quick_engine: Engine, answers: int
) -> None:
    """The next run asks the job first: rows that were written are confirmed, the others go again."""
    with scene(sqlite_quick_engine) as here:
        with pytest.raises(Crash):
            here.run(killed_after=answers)
        here.run(pull=answers % 2 == 0)
        assert here.open_intents() == 0
        assert here.differences() == []
        assert {text: times for text, times in here.org.edits.items() if times > 1} == {}
        quiet = here.run()
        assert quiet is not None
        assert quiet.counts.changed == 0


def test_an_edit_in_the_crm_after_a_killed_job_is_not_lost(sqlite_quick_engine: Engine) -> None:
    """The job wrote, the worker died, somebody edits the record there: that edit stands."""
    with scene(sqlite_quick_engine) as here:
        with pytest.raises(Crash):
            here.run(killed_after=5)  # the job has done its work, and nobody has read its results
        record = here.org.vendor.make_id(1)
        here.org.edit(record, Event__c="edited there", Description="and this, too")
        for _ in range(2):
            here.run()
        assert here.org.fields(here.org.row(record))["Event__c"] == "edited there"
        assert here.org.fields(here.org.row(record))["Description"] == "and this, too"
        assert here.differences() == []


def test_a_job_at_work_is_left_alone(sqlite_quick_engine: Engine) -> None:
    """Its contacts wait, whatever is edited meanwhile; once it has ended they go on."""
    with scene(sqlite_quick_engine, job_seconds=3600.0) as here:
        first = here.run()
        assert first is not None
        assert first.pending == COUNT + 7
        calls = here.org.calls.copy()
        second = here.run()
        assert second is not None
        assert (second.pending, here.org.calls["job_open"]) == (COUNT + 7, calls["job_open"])
        object.__setattr__(here.org.options, "job_seconds", 0.0)
        here.run()
        assert here.open_intents() == 0
        assert here.differences() == []
        assert set(here.org.edits.values()) == {1}


def test_what_no_job_takes_goes_in_batches(sqlite_quick_engine: Engine) -> None:
    """A field that cannot be written fails a job as a whole: each row is then told its reason."""
    with scene(sqlite_quick_engine) as here:
        here.connection = here.connection.model_copy(
            update={"fields": {**here.connection.fields, "notes": FieldRule(names=("Name",))}}
        )
        report = here.run(pull=False)
        assert report is not None
        assert report.counts.rejected == COUNT + 7
        assert here.open_intents() == 0
        with reading(sqlite_quick_engine) as tx:
            reasons = {str(reason) for reason in tx.execute(sa.select(rejects.c.reasons)).scalars()}
        assert all("INVALID_FIELD" in reason for reason in reasons)
