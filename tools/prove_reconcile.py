"""The full-size proof of `reconcile`: fifty silent differences among 20,000 contacts, all named, none false.

Plays on SQLite and on PostgreSQL, with a CRM on a socket and real `crm-pipeline` processes (some
minutes), and prints what it took. Exit code 1 when a figure is wrong. `make test` plays the same
with some hundred contacts and more kinds of differences.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

from crm_pipeline.cli.output import console, table
from crm_pipeline.simulators.generic import CrmOptions, GenericCrm
from crm_pipeline.store.engine import open_database
from crm_pipeline.sync.listed import Listed
from crm_pipeline_tests.databases import Databases
from crm_pipeline_tests.fakes import FakeCrm
from crm_pipeline_tests.sync.world import World
from crm_pipeline_tests.system.compare import compare, contact_id
from crm_pipeline_tests.system.offspring import Done
from crm_pipeline_tests.system.stage import PAGE, Stage, on_stage
from tools.prove import databases

MANY = 20_000
EDITS = 100
"""Ordinary edits on each side that wait meanwhile, and new contacts on each side."""
SILENTLY = "row_version = row_version + 1, pushed_version = row_version + 1"
"""An update that brings its own version is taken for one of ours: nobody is told."""

Named = tuple[str | None, str | None, str, str]
"""Contact, record, kind, field."""


@dataclass(slots=True)
class Sides:
    """The records of the CRM by id, and what was planted."""

    records: dict[str, dict[str, Any]]
    planted: set[Named] = field(default_factory=set)
    doubles: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


def plant(stage: Stage, sides: Sides, random: Random) -> None:
    """Fifty silent differences on contacts drawn from those that have not changed lately."""
    records, sql = sides.records, stage.other.sql
    old = sorted(records, key=lambda key: records[key]["updated_at"])[: len(records) * 9 // 10]
    drawn = iter(random.sample(old, 45))

    def next_pair() -> tuple[str, str]:
        key = next(drawn)
        return key, contact_id(records[key]["phone"])

    for theirs, ours, value in [("name", "nama", "Changed"), ("ticket_price", "ticket_price", 77)] * 5:
        key, contact = next_pair()
        records[key][theirs] = value
        sides.planted.add((contact, key, "value", ours))
    for column, value in [("notes", "past the trigger"), ("capacity", 78)] * 5:
        key, contact = next_pair()
        sql(f"UPDATE contacts SET {column} = ?, {SILENTLY} WHERE id = ?", value, contact)  # noqa: S608
        sides.planted.add((contact, key, "value", column))
    for _ in range(5):
        key, contact = next_pair()
        records[key]["company"] = "PT Sana"
        sql(f"UPDATE contacts SET instansi = 'PT Sini', {SILENTLY} WHERE id = ?", contact)  # noqa: S608
        sides.planted.add((contact, key, "value", "instansi"))
    for _ in range(5):
        key, contact = next_pair()
        sql("DELETE FROM links WHERE external_id = ?", key)
        sides.planted.add((contact, key, "missing here", "*"))
    for _ in range(5):
        key, contact = next_pair()
        sql("DELETE FROM contacts WHERE id = ?", contact)
        sql("UPDATE links SET contact_deleted_at = NULL WHERE external_id = ?", key)
        sides.planted.add((contact, key, "missing here", "*"))
    for number in range(5):
        key, contact = next_pair()
        double = str(9_000_000 + number)
        records[double] = {**records[key], "id": double, "name": "Double"}
        sides.doubles.append(double)
        sides.planted.add((contact, double, "doubled there", "*"))
        imported = str(9_100_000 + number)
        records[imported] = {**records[key], "id": imported, "phone": f"62819999999{number}"}
        sides.planted.add((f"62819999999{number}@c.us", imported, "missing here", "*"))
    for _ in range(5):
        key, contact = next_pair()
        del records[key]
        sides.deleted.append(contact)
        sides.planted.add((contact, key, "missing there", "*"))


def disturb(stage: Stage, sides: Sides, random: Random) -> None:
    """Ordinary work goes on: edits and new contacts on both sides, which the next sync would bring over."""
    touched = {record for _, record, _, _ in sides.planted}
    quiet = [key for key in sides.records if key not in touched]
    chosen = random.sample(quiet, 2 * EDITS)
    for number, key in enumerate(chosen[:EDITS]):
        stage.crm.edit(key, notes=f"Edited in the CRM {number}")
        stage.crm.create(phone=f"62818888{number:05d}", name="New in the CRM")
        stage.other.sql(
            "INSERT INTO contacts (id, nama) VALUES (?, 'New here')", f"62818777{number:05d}@c.us"
        )
    for number, key in enumerate(chosen[EDITS:]):
        contact = contact_id(sides.records[key]["phone"])
        stage.other.sql("UPDATE contacts SET event = ? WHERE id = ?", f"Edited here {number}", contact)


def bytes_per_contact(records: dict[str, dict[str, Any]], kind: Databases) -> float:
    """Memory that the table of the CRM's side holds for each record, measured in this process."""
    with kind.fresh() as url:
        engine = open_database(url)
        world = World(engine, FakeCrm(page_size=PAGE, records=records))
        listed = Listed(world.context(), land=False)
        pages: Iterator[list[Any]] = (
            [world.crm.record(key) for key in list(records)[start : start + PAGE]]
            for start in range(0, len(records), PAGE)
        )
        listed.add(next(pages), world.crm.clock())  # what is imported and cached once is no contact's
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for page in pages:
            # As from a socket: no text is shared with the records of this process.
            listed.add(
                [
                    type(each)(json.loads(json.dumps(each.payload)), each.external_id, each.modified_at)
                    for each in page
                ],
                world.crm.clock(),
            )
        listed.close()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        engine.dispose()
    return (after - before) / (len(listed) - PAGE)


def told(done: Done) -> dict[str, Any]:
    """The one JSON document."""
    document: dict[str, Any] = json.loads(done.out)
    return document


def names(document: dict[str, Any]) -> set[Named]:
    """Every difference a run named."""
    return {
        (each["contact_id"], each["external_id"], each["kind"], each["field"]) for each in document["named"]
    }


@dataclass(slots=True)
class Result:
    """What one database gave."""

    database: str
    rows: list[tuple[object, ...]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def note(
        self, step: str, started: float, document: dict[str, Any], *, missed: int = 0, false: int = 0
    ) -> None:
        """A row of the table."""
        figures = ("compared", "agreed", "known", "differences", "mended", "for_people", "remaining")
        seconds = time.monotonic() - started
        took = (seconds, document["duration_seconds"], document["api_calls"])
        row = (self.database, step, *took, *(document[name] for name in figures), missed, false)
        self.rows.append(row)

    def claim(self, what: str, found: object, expected: object) -> None:
        """Note what does not hold."""
        if found != expected:
            self.wrong.append(f"{self.database}: {what}: expected {expected}, found {found}")


def play(database: str, kind: Databases, number: int, random: Random) -> Result:
    """Sync, plant, compare, mend, compare."""
    result = Result(database)
    with tempfile.TemporaryDirectory(prefix="crm-prove-") as folder, kind.fresh() as url:
        options = CrmOptions(page_size=PAGE)
        first = GenericCrm.seeded(number, options=options)
        with on_stage(Path(folder), url, first) as stage:
            stage.must("sync")
            sides = Sides(dict(first.records))
            plant(stage, sides, random)
        with on_stage(Path(folder), url, GenericCrm(sides.records.values(), options=options)) as stage:
            disturb(stage, sides, random)
            _compare_and_mend(stage, sides, result)
    return result


def _compare_and_mend(stage: Stage, sides: Sides, result: Result) -> None:
    for step, arguments in [("report", ()), ("repair", ("--repair",))]:
        started = time.monotonic()
        done = stage.run("reconcile", "--list", *arguments)
        document = told(done)
        found = names(document)
        missed, false = len(sides.planted - found), len(found - sides.planted)
        result.note(step, started, document, missed=missed, false=false)
        result.claim(f"{step}: exit code", done.code, 0 if arguments else 1)
        result.claim(
            f"{step}: missed, false, differences", (missed, false, len(document["named"])), (0, 0, 50)
        )
        # The first run wrote nothing; the second takes what was news along, too.
        result.claim(f"{step}: known", document["known"], 4 * EDITS)
    stage.settle()
    started = time.monotonic()
    done = stage.run("reconcile", "--list")
    result.note("again", started, told(done), false=len(told(done)["named"]))
    result.claim("again: exit code, differences", (done.code, told(done)["differences"]), (0, 0))
    result.claim("values that differ in the end", compare(stage, but=sides.doubles).lost, 0)
    archived = {key for (key,) in stage.other.sql("SELECT id FROM contacts WHERE archived_at IS NOT NULL")}
    result.claim("archived", archived, set(sides.deleted))


def main() -> int:
    """Play, print, and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--seed", type=int, default=SystemRandom().randrange(10**6), help="of what is planted"
    )
    parser.add_argument("--contacts", type=int, default=MANY, help="how many there are")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    rows: list[tuple[object, ...]] = []
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="crm-prove-") as folder, databases(Path(folder)) as kinds:
        for database, kind in kinds.items():
            random = Random(f"{arguments.seed}")  # noqa: S311 - a draw needs a seed, not secrecy
            result = play(database, kind, arguments.contacts, random)
            rows += result.rows
            wrong += result.wrong
        size = bytes_per_contact(dict(GenericCrm.seeded(arguments.contacts).records), kinds["sqlite"])
    figures = ("compared", "agreed", "known", "found", "mended", "for people", "left", "missed", "false")
    numbers = ("seconds", "inside", "calls", *figures)
    console().print(table(("database", "run", *numbers), rows, numbers=numbers))
    print(f"The table of the CRM's side takes {size:.0f} bytes a contact.")
    print("\n".join(wrong or ["Every claim held."]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
