"""The proofs: what a sync must keep whatever happens to its processes. Each tells its figures."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from random import Random
from typing import Any

import psutil

from crm_pipeline.simulators.contacts import phone_of
from crm_pipeline.simulators.faults import Faults
from crm_pipeline_tests.system.compare import Edits, RowWrites, compare
from crm_pipeline_tests.system.offspring import Offspring
from crm_pipeline_tests.system.snare import Moment
from crm_pipeline_tests.system.stage import PAGE, Stage, sent

REASONS = {
    "invalid_phone": "id",
    "group_chat": "id",
    "null_id": "id",
    "unknown_status": "dealStatus",
    "unknown_task_status": "status",
    "negative_price": "ticketPrice",
    "price_as_words": "ticketPrice",
    "fractional_capacity": "capacity",
    "impossible_date": "eventDayDate",
    "not_an_object": "record",
}
"""Kinds of broken records, and the field their reason names."""
_NAMELESS = {"null_id", "not_an_object"}
"""Kinds that come without the record's id."""
_OUTCOMES = ("created", "updated", "unchanged", "skipped", "rejected")
_NEW_PHONES = 9_000_000
"""Contacts made here have phones from this place on, far from the seeded ones."""


@dataclass(slots=True)
class Proof:
    """What was found, and every claim that did not hold."""

    name: str
    seconds: float = 0.0
    processes: int = 0
    kills: int = 0
    calls: int = 0
    rows: int = 0
    """Contacts in the end."""
    lost: int = 0
    doubled: int = 0
    more: dict[str, int] = field(default_factory=dict)
    moments: list[str] = field(default_factory=list)
    """Of each kill."""
    wrong: list[str] = field(default_factory=list)

    def claim(self, what: str, found: object, expected: object) -> None:
        """Note what does not hold."""
        if found != expected:
            self.wrong.append(f"{what}: expected {expected}, found {found}")


@contextmanager
def _proof(name: str, stage: Stage) -> Iterator[Proof]:
    """Measure a proof."""
    proof = Proof(name)
    started, processes, calls = time.monotonic(), stage.processes, stage.crm.requests
    yield proof
    proof.seconds = time.monotonic() - started
    proof.processes = stage.processes - processes
    proof.calls = stage.crm.requests - calls


def _agree(proof: Proof, stage: Stage, edits: Edits | None = None, but: Iterable[str] = ()) -> None:
    """Claim that both sides hold the same, once each, and that every edit can be found."""
    sides, left_out = compare(stage, broken := frozenset(but)), len(broken)
    lost = edits.lost() if edits is not None else []
    proof.rows = sides.contacts
    proof.lost, proof.doubled = sides.lost + len(lost), sides.doubled
    proof.claim("contacts", sides.contacts, len(stage.crm.records) - left_out)
    proof.claim("lost", (sides.lost, lost), (0, []))
    proof.claim("doubled", sides.doubled, 0)


def killed_pull(stage: Stage, kills: int, random: Random) -> Proof:
    """Kill pulls while they read and while they apply; the next one goes on, and one ends in order."""
    with _proof("pull, killed", stage) as proof:
        records = len(stage.crm.records)
        late = [_takes_over(stage, kill) for kill in _kills_in_a_pull(stage, kills, random, proof.moments)]
        late.append(_takes_over(stage, partial(stage.must, "pull")))
        proof.kills = kills
        proof.claim("runs that waited for a dead one's lease", sum(late), 0)
        _agree(proof, stage)
        proof.claim("landed rows", stage.other.sql("SELECT count(*) FROM external_records"), [(records,)])
        again = stage.must("sync").steps
        proof.claim("changed by another sync", [_changes(step) for step in again.values()], [0, 0, 0])
    return proof


def _kills_in_a_pull(
    stage: Stage, kills: int, random: Random, moments: list[str]
) -> Iterator[Callable[[], None]]:
    """Pulls to be killed: around a request, right after a page was saved, or while contacts are made."""
    records, applying = len(stage.crm.records), kills // 3
    most = records // PAGE // (kills - applying)
    for turn in range(kills - applying):
        if turn % 2:
            pages = random.randint(1, most // 2)
            moments.append(f"{pages} more pages saved")
            yield partial(stage.kill_when, _places_passed(stage, pages), 0.0, "pull")
        else:
            moment = Moment.drawn(random, most)
            moments.append(str(moment))
            yield partial(stage.kill_at_request, moment, "pull")
    for target in sorted(random.sample(range(1, records * 3 // 4), applying)):
        delay = random.uniform(0, 0.1)
        moments.append(f"contact {target} +{delay:.3f} s")
        yield partial(stage.kill_when, partial(_contacts_reach, stage, target), delay, "pull")


def _places_passed(stage: Stage, number: int) -> Callable[[], bool]:
    """Whether the place where a pull goes on has moved so often since this was asked first."""
    places: set[str] = set()

    def passed() -> bool:
        places.add(str(stage.other.sql("SELECT pull FROM connections")))
        return len(places) > number

    return passed


def _contacts_reach(stage: Stage, number: int) -> bool:
    return int(stage.other.sql("SELECT count(*) FROM contacts")[0][0]) >= number


def _changes(step: dict[str, Any]) -> int:
    return int(step["created"] + step["updated"] + step["rejected"])


def _takes_over(stage: Stage, work: Callable[[], object]) -> int:
    """Do some work; 1 if it had to wait until the lease of a killed process ran out."""
    left = stage.other.sql("SELECT expires_at FROM leases")
    (last,) = stage.other.sql("SELECT coalesce(max(id), 0) FROM sync_runs")[0]
    work()
    began = stage.other.sql("SELECT min(started_at) FROM sync_runs WHERE id > ?", last)[0][0]
    return int(bool(left and began is not None and began >= left[0][0]))


def killed_push(stage: Stage, changed: int, new: int, kills: int, random: Random) -> Proof:
    """Kill pushes around their writes, while users of the CRM and other programs go on editing."""
    with _proof("push, killed", stage) as proof:
        stage.must("pull")
        before = len(stage.crm.records)
        contacts = {record["phone"]: key for key, record in stage.crm.records.items()}
        edits = Edits(stage)
        edits.here("notes", random.sample(sorted(contacts), changed))
        _insert(stage, new)
        size = stage.batch or 1
        for _ in range(kills):
            moment = Moment.drawn(random, max(1, changed // size // kills), writes=True)
            proof.moments.append(str(moment))
            stage.kill_at_request(moment, "push")
            one, two, three, four = random.sample(sorted(contacts), 4)
            edits.there("notes", contacts[one])
            edits.there("pic", contacts[two])
            edits.here("notes", [three, *_last_written(stage)])
            edits.here("pic", [four])
        proof.kills = kills
        stage.must("push")
        stage.settle()
        _agree(proof, stage, edits)
        proof.claim("records", len(stage.crm.records), before + new)
        proof.more["edits"] = len(edits.made)
        _no_write_twice(proof, stage)
    return proof


def killed_in_flight(stage: Stage, calls: int) -> Proof:
    """Kill a push when so many calls have been done and none of them answered; then edit what they wrote."""
    with _proof("push, killed with several calls in flight", stage) as proof:
        stage.must("pull")
        before, new = len(stage.crm.records), calls * stage.batch
        edits = Edits(stage)
        edits.here("notes", [record["phone"] for record in stage.crm.records.values()])
        _insert(stage, new)
        stage.configure(in_flight=calls)
        stage.kill_at_request(Moment(calls, "done", writes=True, held=True), "push")
        proof.kills = 1
        written = {record["id"]: record for record in sent(stage.crm)}
        proof.claim("calls under way", [call.kind for call in stage.crm.log], ["batch"] * calls)
        proof.claim("records written", len(written), calls * stage.batch)
        stays_open = stage.other.sql("SELECT count(*) FROM intents WHERE state = 'open'")[0][0]
        proof.claim("written without an open intent", max(0, len(written) - stays_open), 0)
        proof.more["open intents"] = stays_open
        one, two, *_ = written
        edits.there("notes", one)
        edits.there("pic", two)
        stage.must("push")
        stage.settle()
        _agree(proof, stage, edits)
        proof.claim("records", len(stage.crm.records), before + new)
        _no_write_twice(proof, stage)
    return proof


def _last_written(stage: Stage) -> list[str]:
    """The contact whose notes the CRM was told of last: the killed push may not know that it was."""
    notes = [record["notes"] for record in sent(stage.crm) if record.get("notes")]
    return [note.rpartition(" ")[2] for note in notes[-1:]]


def _insert(stage: Stage, number: int) -> None:
    """Another program makes contacts."""
    for index in range(number):
        contact, name = f"{phone_of(_NEW_PHONES + index)}@c.us", f"Panitia {index}"
        stage.other.sql("INSERT INTO contacts (id, nama) VALUES (?, ?)", contact, name)


def _no_write_twice(proof: Proof, stage: Stage) -> None:
    """Claim that the CRM was told of each new value once, and of none that came from it.

    Nor may a user be in conflict with what the CRM was told for another user here.
    """
    values = [value for record in sent(stage.crm) for value in record.values()]
    told = Counter(value for value in values if _starts(value, _OURS))
    twice = {value: number for value, number in told.items() if number > 1}
    proof.more["values written"] = len(told)
    proof.more["written twice"] = len(twice)
    proof.claim("written twice", twice, {})
    proof.claim("sent back to the CRM", [value for value in values if _starts(value, ("there ",))], [])
    conflicts = [json.loads(value) for (value,) in stage.other.sql("SELECT external FROM conflicts") if value]
    proof.claim("in conflict with an echo", [value for value in conflicts if _starts(value, _OURS)], [])


_OURS = ("here ", "Panitia ")
"""How values begin that only other programs write here."""


def _starts(value: object, words: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value.startswith(words)


_NEWEST = "SELECT id FROM contacts ORDER BY id DESC LIMIT 10"


def cut_replies(stage: Stage, cuts: int) -> Proof:
    """Create contacts in the CRM, lose so many replies after it has made the record, and edit some."""
    with _proof("creates, reply cut", stage) as proof:
        stage.must("pull")
        # Single calls: after three lost replies in a row a run takes the CRM to hang, and stops.
        every, new = (1, cuts) if stage.batch else (2, 2 * cuts)
        stage.configure(in_flight=1 if every > 1 else 4)
        before = len(stage.crm.records)
        _insert(stage, new)
        stage.crm.faults = Faults(cut_after_write=every)
        proof.claim("exit code with writes left", stage.run("push").code, 1)
        struck = stage.crm.turns.struck["cut_after_write"] * (stage.batch or 1)
        stage.crm.faults = Faults()
        edits = Edits(stage)
        edits.here("nama", (contact for (contact,) in stage.other.sql(_NEWEST)))
        stage.settle()
        _agree(proof, stage, edits)
        proof.more["creates cut"] = struck
        proof.claim("creates cut", struck, cuts)
        proof.claim("records", len(stage.crm.records), before + new)
        _no_write_twice(proof, stage)
    return proof


def broken_records(stage: Stage, every: int) -> Proof:
    """One record in so many is broken: it is rejected with its reason, and all others arrive."""
    with _proof("broken records", stage) as proof:
        stage.crm.faults = Faults(bad_record=every)
        broken = stage.crm.broken
        steps = stage.must("pull").steps
        for step in steps.values():
            proof.claim(f"{step['step']} adds up", sum(step[name] for name in _OUTCOMES), step["seen"])
        good = len(stage.crm.records) - len(broken)
        counts = (steps["apply"]["seen"], steps["apply"]["created"], steps["apply"]["rejected"])
        proof.claim("seen, created, rejected", counts, (len(stage.crm.records), good, len(broken)))
        listed = json.loads(stage.must("rejects", "list", "--limit", "1000").out)
        keys = dict(stage.other.sql("SELECT id, key FROM rejects"))
        found = Counter((keys[each["id"]], *each["reasons"]) for each in listed["rejects"])
        nameless = [key for key in keys.values() if key.startswith("content:")]
        expected = Counter((key, REASONS[kind]) for key, kind in broken.items() if kind not in _NAMELESS)
        proof.claim("reasons of records without an id", len(nameless), len(broken) - expected.total())
        expected += Counter(each for each in found if each[0] in nameless)
        proof.claim("rejects listed, each with its reason", found, expected)
        _agree(proof, stage, but=broken)
        proof.more["rejected"] = listed["total"]
    return proof


def nothing_changed(stage: Stage) -> Proof:
    """Sync again what is in sync: no row is written and nothing is pushed, however much is read."""
    with _proof("unchanged, again", stage) as proof:
        stage.must("sync")
        rows = RowWrites(stage.other)
        for name, windows in (("since", True), ("whole", False)):
            stage.configure(windows=windows)
            calls, writes = stage.crm.requests, len(stage.crm.log)
            stage.must("sync")
            written, pushed = rows.number(), len(stage.crm.log) - writes
            proof.more[f"calls ({name})"] = stage.crm.requests - calls
            proof.more[f"rows written ({name})"] = written
            proof.claim(f"rows written, and writes to the CRM ({name})", (written, pushed), (0, 0))
        _agree(proof, stage)
    return proof


def plain_update(stage: Stage, contacts: int) -> Proof:
    """Another program's UPDATE reaches the CRM as one batched call that holds only the changed field."""
    with _proof("plain SQL update", stage) as proof:
        stage.must("pull")
        edits = Edits(stage)
        chosen = [record["phone"] for record in stage.crm.records.values()][-contacts:]
        for command, column, name in (("push", "notes", "notes"), ("sync", "pic", "sales_rep")):
            edits.here(column, chosen)
            start = len(stage.crm.log)
            stage.must(command)
            calls = list(stage.crm.log)[start:]
            items = list(sent(stage.crm, start))
            proof.claim(f"writing calls of a {command}", [call.kind for call in calls], ["batch"])
            proof.claim(f"records in the call of a {command}", len(items), contacts)
            shapes = {frozenset(item) for item in items}
            proof.claim(f"what a {command} sends of a record", shapes, {frozenset({"id", name})})
            proof.more[f"calls that write ({command})"] = len(calls)
        stage.settle()
        _agree(proof, stage, edits)
        proof.more["records in a call"] = contacts
    return proof


def two_at_once(stage: Stage, rounds: int, random: Random) -> Proof:
    """Two syncs at once on one database: one waits for the other, and each change is written once."""
    with _proof("two syncs at once", stage) as proof:
        stage.must("pull")
        edits = Edits(stage)
        records = {record["phone"]: key for key, record in stage.crm.records.items()}
        failed = 0
        for _ in range(rounds):
            first, second, third, fourth, fifth = random.sample(sorted(records), 5)
            edits.here("pic", [first, second, third])
            edits.there("notes", records[fourth])
            edits.there("notes", records[fifth])
            failed += _pair(stage, proof)
        proof.more["rounds"] = rounds
        proof.more["changes"] = len(edits.made)
        proof.more["failed"] = failed
        proof.claim("processes that failed", failed, 0)
        proof.claim("runs at work at one time", _at_one_time(stage), 0)
        _agree(proof, stage, edits)
        _no_write_twice(proof, stage)
        proof.claim("values written", proof.more["values written"], 3 * rounds)
    return proof


def _pair(stage: Stage, proof: Proof) -> int:
    """Run two syncs, neither of which gets an answer before both have the database open; failures."""
    with (
        stage.start("sync", "--json", PGAPPNAME=_SEATS[0]) as one,
        stage.start("sync", "--json", PGAPPNAME=_SEATS[1]) as other,
    ):
        stage.snare.hold(partial(_both_at_work, stage, (one, other)))
        ends = [one.finish(), other.finish()]
    stage.snare.clear()
    for end in ends:
        proof.claim("error of a sync", end.err, "")
    return sum(end.code != 0 for end in ends)


_SEATS = ("one sync", "other sync")


def _both_at_work(stage: Stage, processes: Sequence[Offspring]) -> bool:
    """Whether both have come as far as the database, or one has ended."""
    if any(process.ended() for process in processes):
        return True
    if stage.other.kind == "sqlite":
        path = str(stage.other.path)
        opened = [{file.path for file in psutil.Process(each.pid).open_files()} for each in processes]
        return all(path in files for files in opened)
    seats = "SELECT count(DISTINCT application_name) FROM pg_stat_activity WHERE application_name IN (?, ?)"
    return stage.other.sql(seats, *_SEATS) == [(2,)]


def _at_one_time(stage: Stage) -> int:
    """How many runs began before the one before them had ended."""
    runs = stage.other.sql("SELECT run_id, started_at, finished_at FROM sync_runs ORDER BY started_at, id")
    spans: dict[str, list[Any]] = {}
    for run, began, ended in runs:
        span = spans.setdefault(run, [began, ended])
        span[1] = max(span[1], ended)
    ordered = sorted(spans.values())
    return sum(later[0] < earlier[1] for earlier, later in pairwise(ordered))
