"""The demo's story: syncs with changes on both sides, webhooks, a push by hand; every figure checked."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from crm_pipeline.cli.dagster_ui import Run
from crm_pipeline.cli.http_api import Answer, HttpApi
from crm_pipeline.cli.options import CommandError
from crm_pipeline.cli.output import OUTCOMES
from crm_pipeline.cli.processes import wait_until
from crm_pipeline.simulators.contacts import phone_of
from crm_pipeline.simulators.generic import GenericCrm

STEPS = {"external_contacts": "pull", "contacts": "apply", "outbound_push": "push"}
"""What each asset does, in the order of a sync."""
FIGURES = (*OUTCOMES, "api_calls", "duration_seconds")
EDITED_THERE, NEW_THERE, EDITED_HERE, NEW_HERE = 12, 3, 8, 2
RUN_SECONDS = 180.0
_WRITES = ("create", "update", "batch")
_NOTE_THERE = "Rapat panitia dipindah ke Jumat."
_NOTE_HERE = "Minta contoh gelang QR."
_NOTE_TOLD = "Kirim ulang penawaran gelang."
_NOTE_BY_HAND = "Minta faktur atas nama panitia."
_LOOK_SECONDS = 0.5
"""The API answers 100 requests a minute."""


class Runner(Protocol):
    """Where jobs run: ``DagsterUi``."""

    def launch(self, job: str) -> str:
        """Launch a job and return the run's id."""

    def runs(self) -> list[Run]:
        """Return all runs."""

    def failure(self, run_id: str) -> str:
        """Return why a run failed."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one step of one sync did."""

    sync: str
    step: str
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the demo promises."""

    what: str
    expected: object
    found: object

    @property
    def held(self) -> bool:
        """Whether it came true."""
        return self.expected == self.found


@dataclass(slots=True)
class Story:
    """Plays the demo on a running simulator, database and Dagster, and keeps what came of it."""

    crm: GenericCrm
    database: Path
    runner: Runner
    api: HttpApi
    secret: str
    """What webhooks carry in their body."""
    say: Callable[[str], None]
    alive: Callable[[], None]
    """Raises when one of the demo's processes has ended."""
    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    _counted: set[str] = field(default_factory=set)

    def play(self) -> None:
        """Tell the whole story.

        Raises:
            CommandError: a run failed, or took too long.
        """
        self._first_sync()
        self._both_sides_change()
        self._nothing_changes()
        self._webhooks_arrive()
        self._one_push_by_hand()

    def _first_sync(self) -> None:
        there = len(self.crm.records)
        self.say(f"First sync: {there} contacts come from the CRM")
        done = self._sync("first")
        self._check("first sync reads every record", there, done["pull"]["seen"])
        self._check("first sync creates every contact", there, done["apply"]["created"])
        self._check("first sync writes nothing to the CRM", 0, _changed(done["push"]))
        self._check("contacts in the database", there, self._ask("SELECT count(*) FROM contacts"))

    def _both_sides_change(self) -> None:
        self.say(
            f"Both sides change: in the CRM {EDITED_THERE} edits and {NEW_THERE} new records, "
            f"by plain SQL {EDITED_HERE} edits and {NEW_HERE} new contacts"
        )
        ids = list(self.crm.records)
        there, here = ids[:EDITED_THERE], ids[EDITED_THERE : EDITED_THERE + EDITED_HERE]
        self._change_there(there, len(ids))
        self._change_here([str(self.crm.records[each]["phone"]) for each in here], len(ids) + NEW_THERE)
        self.say("Second sync: each change travels to the other side")
        done = self._sync("second")
        self._check("contacts updated from the CRM", EDITED_THERE, done["apply"]["updated"])
        self._check("contacts created from the CRM", NEW_THERE, done["apply"]["created"])
        self._check("CRM records updated from here", EDITED_HERE, done["push"]["updated"])
        self._check("CRM records created from here", NEW_HERE, done["push"]["created"])
        self._check(
            "edits of the CRM found in the database",
            EDITED_THERE,
            self._ask("SELECT count(*) FROM contacts WHERE notes = ? AND capacity = 321", _NOTE_THERE),
        )
        arrived = [self.crm.records[each] for each in here]
        self._check(
            "SQL edits found in the CRM",
            EDITED_HERE,
            sum(each["notes"] == _NOTE_HERE and each["ticket_price"] == 0 for each in arrived),
        )
        everywhere = len(ids) + NEW_THERE + NEW_HERE
        self._check(
            "contacts in the database at last", everywhere, self._ask("SELECT count(*) FROM contacts")
        )
        self._check("records in the CRM at last", everywhere, len(self.crm.records))

    def _nothing_changes(self) -> None:
        self.say("Third sync: nothing has changed, so nothing is written on either side")
        writes, versions = self._writes(), self._ask("SELECT sum(row_version) FROM contacts")
        done = self._sync("third")
        self._check("third sync changes no contact", 0, _changed(done["apply"]))
        self._check("third sync changes no CRM record", 0, _changed(done["push"]))
        self._check("third sync sends the CRM no write", writes, self._writes())
        self._check("row versions stand still", versions, self._ask("SELECT sum(row_version) FROM contacts"))

    def _webhooks_arrive(self) -> None:
        self.say("Webhooks: the CRM tells of a new record, of an edit, of the edit again, and of nonsense")
        writes, bodies = self._writes(), self._news()
        started = time.monotonic()
        answers = [self.api.webhook({"secret": self.secret, **body}) for body in bodies]
        self.rows.append(Row("webhooks", "receive", _received(answers, time.monotonic() - started)))
        created, updated, again, refused = (answer.document for answer in answers)
        statuses = [answer.status for answer in answers]
        self._check("webhooks are answered", [200, 200, 200, 422], statuses)
        actions = [answer.document.get("action") for answer in answers]
        self._check("webhooks are understood", ["created", "updated", "updated", None], actions)
        self._check("a repeat is the same webhook", updated.get("eventId"), again.get("eventId"))
        self._check("a refusal names the field", ["capacity"], list(refused.get("reasons", ())))
        events = [str(each.get("eventId")) for each in (created, updated)]
        wait_until(
            lambda: self._ended(events), seconds=RUN_SECONDS, what="applying webhooks", every=_LOOK_SECONDS
        )
        became = [self.api.event(event).document for event in events]
        self._check("webhooks are applied", ["applied"] * 2, [each.get("status") for each in became])
        wait_until(self._idle, seconds=RUN_SECONDS, what="the sensor's run")
        runs = self._new_runs()
        jobs = {run.id: run.job for run in runs}
        applied_by = [jobs.get(str(each.get("runId"))) for each in became]
        self._check("the sensor's run applied them", ["webhook_job"] * 2, applied_by)
        done = self._note("webhooks", runs, {"contacts": "apply"})["apply"]
        self._check("contacts created by webhooks", 1, done["created"])
        self._check("contacts updated by webhooks", 1, done["updated"])
        told = self._ask(
            "SELECT count(*) FROM contacts WHERE id = ? OR (id = ? AND notes = ?)",
            *(bodies[0]["phone"], bodies[1]["phone"], _NOTE_TOLD),
        )
        self._check("what webhooks told is in the database", 2, told)
        self._check("webhooks are not sent back to the CRM", writes, self._writes())

    def _one_push_by_hand(self) -> None:
        self.say("One push by hand: plain SQL edits a contact, the API writes it to the CRM")
        record_id = self._untouched()
        contact_id = str(self.crm.records[record_id]["phone"])
        with closing(sqlite3.connect(self.database, timeout=30)) as database, database:
            database.execute("UPDATE contacts SET notes = ? WHERE id = ?", (_NOTE_BY_HAND, contact_id))
        calls, started = self.crm.requests, time.monotonic()
        answer = self.api.push(contact_id)
        seconds, calls = time.monotonic() - started, self.crm.requests - calls
        figures = {"seen": 1, str(answer.document.get("action")): 1, "api_calls": calls}
        shown = {**dict.fromkeys(FIGURES, 0), **figures, "duration_seconds": seconds}
        self.rows.append(Row("by hand", "push", shown))
        self._check("a push by hand is answered", 200, answer.status)
        self._check("a push by hand updates", "updated", answer.document.get("action"))
        self._check("its edit is in the CRM", _NOTE_BY_HAND, self.crm.records[record_id]["notes"])
        expected = {
            "enabled": True,
            "contacts": len(self.crm.records),
            "backlog": 0,
            "rejected": 1,
            "conflicts": 0,
            "pendingPushes": 0,
            "lastError": None,
        }
        status = self.api.status().document
        self._check("the API's status", expected, {name: status.get(name) for name in expected})

    def _news(self) -> list[dict[str, Any]]:
        """What the CRM tells after people worked in it: its records in the guide's format."""
        new = self.crm.create(
            phone=f"{phone_of(len(self.crm.records))}@c.us", name="Laksmi Cakralintara", status="prospect"
        )
        edited = self.crm.edit(self._untouched(), notes=_NOTE_TOLD)
        return [new, edited, edited, {**edited, "capacity": "a few"}]

    def _untouched(self) -> str:
        """A record nobody has changed before."""
        return list(self.crm.records)[EDITED_THERE + EDITED_HERE]

    def _ended(self, events: list[str]) -> bool:
        self.alive()
        return all(self.api.event(event).document.get("status") != "landed" for event in events)

    def _change_there(self, record_ids: list[str], count: int) -> None:
        """Work in the CRM as its users do."""
        for record_id in record_ids:
            self.crm.edit(record_id, notes=_NOTE_THERE, capacity=321)
        for index in range(count, count + NEW_THERE):
            self.crm.create(phone=f"{phone_of(index)}@c.us", name="Sekar Wirajagara", status="prospect")

    def _change_here(self, contact_ids: list[str], count: int) -> None:
        """Write plain SQL, as another program on the same database would."""
        new = [(f"{phone_of(index)}@c.us", "Bagas Tirtabayuna") for index in range(count, count + NEW_HERE)]
        edits = [(_NOTE_HERE, 0, contact_id) for contact_id in contact_ids]
        with closing(sqlite3.connect(self.database, timeout=30)) as database, database:
            database.executemany("UPDATE contacts SET notes = ?, ticket_price = ? WHERE id = ?", edits)
            database.executemany("INSERT INTO contacts (id, nama) VALUES (?, ?)", new)

    def _ask(self, query: str, *values: object) -> int:
        with closing(sqlite3.connect(self.database, timeout=30)) as database:
            return int(database.execute(query, values).fetchone()[0])

    def _writes(self) -> int:
        return sum(self.crm.calls[kind] for kind in _WRITES)

    def _sync(self, name: str) -> dict[str, dict[str, float]]:
        """Run ``sync_job``; the figures of all runs since the last time, by step.

        The sensor may push a change before our run comes to it: both runs count.
        """
        run_id = self.runner.launch("sync_job")
        wait_until(lambda: self._idle(run_id), seconds=RUN_SECONDS, what=f"the {name} sync")
        return self._note(name, self._new_runs(), STEPS)

    def _new_runs(self) -> list[Run]:
        """Runs since the last time; every one must have succeeded."""
        runs = [run for run in self.runner.runs() if run.id not in self._counted]
        self._counted.update(run.id for run in runs)
        for run in runs:
            if run.status != "SUCCESS":
                raise CommandError(f"{run.job} ended as {run.status}: {self.runner.failure(run.id)}")
        return runs

    def _note(self, name: str, runs: list[Run], steps: dict[str, str]) -> dict[str, dict[str, float]]:
        """Keep and check the figures of runs, by step."""
        done = {step: _sum(runs, asset) for asset, step in steps.items()}
        for step, figures in done.items():
            self.rows.append(Row(name, step, figures))
            outcomes = sum(figures[outcome] for outcome in OUTCOMES[1:])
            self._check(f"{name}: {step} adds up", figures["seen"], outcomes)
            self._check(f"{name}: {step} rejects nothing", 0, figures["rejected"])
        return done

    def _idle(self, run_id: str | None = None) -> bool:
        """Whether all runs have ended, this one among them."""
        self.alive()
        runs = self.runner.runs()
        return run_id in {None, *(run.id for run in runs)} and all(run.ended for run in runs)

    def _check(self, what: str, expected: object, found: object) -> None:
        self.checks.append(Check(what, expected, found))


def _sum(runs: list[Run], asset: str) -> dict[str, float]:
    """Add up the figures of one asset; they are 0 where no run materialized it."""
    found = [run.figures.get(asset, {}) for run in runs]
    return {name: sum(figures.get(name, 0) for figures in found) for name in FIGURES}


def _changed(figures: dict[str, float]) -> float:
    return figures["created"] + figures["updated"]


def _received(answers: Sequence[Answer], seconds: float) -> dict[str, float]:
    """Count answers to webhooks; one that was known already is skipped."""
    counts: Counter[str] = Counter()
    known: set[object] = set()
    for answer in answers:
        event = answer.document.get("eventId")
        counts["skipped" if event in known else answer.document.get("action", "rejected")] += 1
        known.add(event)
    figures: dict[str, float] = {name: counts[name] for name in FIGURES}
    return {**figures, "seen": len(answers), "duration_seconds": seconds}


def document(story: Story) -> dict[str, Any]:
    """Everything for machines."""
    return {
        "steps": [{"sync": row.sync, "step": row.step, **row.figures} for row in story.rows],
        "checks": [
            {"what": check.what, "expected": check.expected, "found": check.found, "held": check.held}
            for check in story.checks
        ],
        "held": all(check.held for check in story.checks),
    }
