"""Two sides and all that can happen to them: the model the sync is proved against.

A state machine makes users edit both sides in any order while syncs run, crash, and meet
failing calls. Every edit writes a value nobody wrote before, and remembers the value it
replaced. After quiet rounds each edit must be found: on both sides, or replaced by a user
who saw it, or in the ledger of conflicts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.engine import Engine

from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import ConnectorError, CrmUnavailableError, Write, WriteResult, WriteStatus
from crm_pipeline.store import landing, state
from crm_pipeline.store.engine import writing
from crm_pipeline.store.tables import metadata
from crm_pipeline.sync.context import Context, lease_held
from crm_pipeline.sync.events import apply_all
from crm_pipeline.sync.forget import forget
from crm_pipeline.sync.mapping import FieldMapping
from crm_pipeline.sync.meanwhile import Meanwhile
from crm_pipeline.sync.pull import pull_new
from crm_pipeline.sync.push import push_changed
from crm_pipeline.sync.reports import Report
from crm_pipeline_tests.fakes import Crash, FakeClock, FakeCrm
from crm_pipeline_tests.sync.world import WRITTEN_BY_SYNC, World

FIELDS = {"notes": "notes", "nama": "name"}
"""Contact field -> the CRM's name for it."""
PHONES = [f"62811000000{number:02d}@c.us" for number in range(3)]
MOST_ROUNDS = 6

KINDS = st.fixed_dictionaries(
    {
        "policy": st.sampled_from(["external", "internal", "newest", "manual"]),
        "answers_with_record": st.booleans(),
        "can_find": st.booleans(),
        "reads_by_modified": st.booleans(),
        "rewrites": st.booleans(),
        "unique": st.booleans(),
        "checks_expected": st.booleans(),
        "reads_ahead": st.booleans(),
    }
)
"""Every kind of CRM, and every policy."""


class FaultyContext(Context):
    """A worker that may die around every transaction."""

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction with a place to die before it, in it and after it."""
        crm = self.connector
        assert isinstance(crm, FakeCrm)
        crm.fault("before transaction")
        with super().write() as tx:
            yield tx
            crm.fault("in transaction")
        crm.fault("after transaction")


def _steps(context: Context) -> tuple[Callable[[Context], Report], ...]:
    """A whole sync; what lands is applied record by record while it is pulled."""
    meanwhile, pulled = Meanwhile(context, 1), list[Report]()

    def pull(context: Context) -> Report:
        pulled.append(pull_new(context, land=meanwhile.land))
        return pulled[-1]

    def push(context: Context) -> Report:
        return push_changed(context, just_pulled=not pulled[-1].resumed)

    return pull, partial(apply_all, begun=meanwhile.report), push


@dataclass(frozen=True)
class Edit:
    """A user wrote ``value`` where ``over`` stood."""

    phone: str
    name: str
    side: str
    value: str
    over: str | None


@dataclass
class Script:
    """What happens at which place of a run; places are counted as the run passes them."""

    machine: Narrow
    events: dict[int, str]
    dies_at: str = ""
    """A place by its name, where the worker dies when it comes by for the first time."""
    passed: int = 0
    pages: int = 0

    def __call__(self, where: str) -> None:
        """Pass a place."""
        if where == self.dies_at:
            raise Crash(where)
        self.pages += where == "page"
        event = self.events.get(self.passed)
        self.passed += 1
        if event is None:
            return
        if event == "crash":
            raise Crash(where)
        if event == "unavailable" and where in {"page", "read", "find", "before write"}:
            raise CrmUnavailableError(where)
        # Inside a transaction SQLite makes other writers wait; they come before or after it.
        if event.startswith("edit") and where != "in transaction":
            self.machine.somebody_edits(event, before_the_look=self.pages == 1 and where == "page")


@dataclass
class Ghost:
    """What users did."""

    edits: list[Edit] = field(default_factory=list)
    watermark: datetime | None = None
    unmapped: dict[str, str] = field(default_factory=dict)
    deleted_here: set[str] = field(default_factory=set)
    deleted_there: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)
    """People of whom nothing may be kept."""
    unanswered: set[tuple[str, str | None]] = field(default_factory=set)
    """Phone and value of writes whose answer we never got: nobody can tell who saw them there."""
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))


class Narrow(RuleBasedStateMachine):
    """One contact and little else than edits and crashes, so that these fall densely on the same fields."""

    engine: ClassVar[Engine]
    phones: ClassVar[list[str]] = PHONES[:1]
    steps: ClassVar[int] = 15
    read_back: ClassVar[bool] = True
    """Whether webhooks are hints, as they have to be where they may come late."""

    def __init__(self) -> None:
        """An empty world."""
        super().__init__()
        empty(self.engine)
        self.ghost = Ghost()
        self.world = World(self.engine, FakeCrm(clock=FakeClock(), page_size=2, batch_size=2))
        self.world.crm.on_write = self._was_intended

    @initialize(kind=KINDS)
    def begin(self, kind: dict[str, Any]) -> None:
        """Choose a CRM and a policy."""
        policy, rewrites = kind["policy"], kind["rewrites"]
        self.world.connection = Connection.model_validate(
            {
                "merge": {"policy": policy},
                "webhook": {"read_back": self.read_back},
                "limits": {"in_flight": 1},  # so that each story can be told again
            }
        )
        for name in kind.keys() - {"policy", "rewrites"}:
            setattr(self.world.crm, name, kind[name])
        if rewrites:
            self.world.crm.rewrite = _tidied

    # What users do.

    @rule(number=st.integers(0, 2), name=st.sampled_from(sorted(FIELDS)))
    def bot_edits(self, number: int, name: str) -> None:
        """Another program writes ``contacts`` with plain SQL."""
        self._edit_internal(self.phones[number % len(self.phones)], name)

    @rule(number=st.integers(0, 2), name=st.sampled_from(sorted(FIELDS)))
    def sales_edits(self, number: int, name: str) -> None:
        """Somebody works in the CRM."""
        self._edit_external(self.phones[number % len(self.phones)], name)

    @rule(minutes=st.sampled_from([1, 10, 600]), set_ours=st.integers(-20, 20), set_theirs=st.integers(-4, 4))
    def time_passes(self, minutes: int, set_ours: int, set_theirs: int) -> None:
        """Time goes on, and clocks are set: ours at will, the CRM's by less than the overlap."""
        self.world.crm.clock.pass_by(minutes=minutes + set_ours)
        self.world.crm.own_clock.pass_by(minutes=minutes + set_theirs)

    # What the sync does.

    @rule()
    def quiet_sync(self) -> None:
        """A run in which nothing goes wrong."""
        self._run({})

    @rule()
    def push_only(self) -> None:
        """A run that only pushes: it has to look before it writes."""
        self._run({}, pull=False)

    @rule(
        pull=st.booleans(),
        events=st.dictionaries(
            st.integers(0, 50),
            st.sampled_from(
                ["crash", "unavailable", "edit bot 0", "edit bot 1", "edit sales 0", "edit sales 1"]
            ),
            min_size=1,
            max_size=3,
        ),
    )
    def troubled_sync(self, events: dict[int, str], pull: bool) -> None:  # noqa: FBT001
        """A run that dies, meets failing calls, and has users edit meanwhile."""
        self._run(events, pull=pull)

    @rule(
        pull=st.booleans(),
        where=st.sampled_from(["page", "before write", "one write", "after write", "after write"]),
    )
    def dies_at(self, where: str, pull: bool) -> None:  # noqa: FBT001
        """A run that dies around a call, where nobody can tell what arrived."""
        self._run({}, pull=pull, dies_at=where)

    @rule(status=st.sampled_from([WriteStatus.FAILED, WriteStatus.UNKNOWN]), number=st.integers(0, 2))
    def next_write_fails(self, status: WriteStatus, number: int) -> None:
        """The CRM will refuse one record's next write for a passing cause, or not say."""
        phone = self.phones[number % len(self.phones)]
        record = self._record(phone)
        if record is not None:
            self.world.crm.refuse[record["id"]] = WriteResult(status, reason="busy")

    @invariant()
    def nobody_is_doubled(self) -> None:
        """UNIQUE: at no moment is there a second record for one phone."""
        phones = [record["phone"] for record in self.world.crm.records.values()]
        assert len(phones) == len(set(phones)), "a record was doubled in the CRM"

    @invariant()
    def what_is_stored_makes_sense(self) -> None:
        """All that must hold at each moment, of one look: for four, looking cost more than many a step."""
        stored = self.world.tables("contacts", "links", "external_records", "rejects", "connections")
        _is_whole(stored)
        self._nobody_is_archived_without_a_delete(stored["contacts"])
        self._the_watermark_never_goes_back(stored["connections"])

    def _nobody_is_archived_without_a_delete(self, contacts: list[dict[str, Any]]) -> None:
        """DELSAFE: absence from a listing is no delete."""
        archived = {row["id"] for row in contacts if row["archived_at"] is not None}
        assert archived <= self.ghost.deleted_there, "a contact was archived whose record is there"

    def _the_watermark_never_goes_back(self, connections: list[dict[str, Any]]) -> None:
        """CURSOR: but where a pull of everything is asked for."""
        for row in connections:
            if row["watermark"] is None:
                self.ghost.watermark = None  # everything is read anew
                continue
            assert self.ghost.watermark is None or row["watermark"] >= self.ghost.watermark
            self.ghost.watermark = row["watermark"]

    def teardown(self) -> None:
        """Users stop and faults end: the sides meet, every edit is accounted for, and nothing moves."""
        self.world.crm.refuse.clear()
        self.world.crm.hidden.clear()
        try:
            self._settle()
            self._check_agreement()
            self._check_every_edit()
            self._check_that_repeating_changes_nothing()
        finally:
            super().teardown()

    # Inside.

    def somebody_edits(self, event: str, *, before_the_look: bool) -> None:
        """An edit while a run is under way.

        Between our last look at a record and our write to it, only the CRM itself can keep
        an edit from being overwritten, by checking what we expect; and only the CRM can keep
        two people from making one record at the same moment. Where it does neither, these
        edits come before the look.
        """
        _, who, number = event.split()
        phone = self.phones[int(number) % len(self.phones)]
        if who == "bot":
            self._edit_internal(phone, "notes")
        elif before_the_look or (
            self.world.crm.checks_expected if self._record(phone) else self.world.crm.unique
        ):
            self._edit_external(phone, "notes")

    def _edit_internal(self, phone: str, name: str) -> None:
        value = f"bot {next(self.ghost.numbers)}"
        found = [row for row in self.world.rows("contacts") if row["id"] == phone]
        over = found[0][name] if found else None
        if found:
            statement = f"UPDATE contacts SET {name} = :value WHERE id = :id"  # noqa: S608 - one of FIELDS
        else:
            statement = f"INSERT INTO contacts (id, {name}) VALUES (:id, :value)"  # noqa: S608 - see above
            self.ghost.forgotten.discard(phone)
        self.world.sql(statement, value=value, id=phone)
        self.ghost.edits.append(Edit(phone, name, "internal", value, over))

    def _edit_external(self, phone: str, name: str) -> None:
        value = f"sales {next(self.ghost.numbers)}"
        record = self._record(phone)
        over = record.get(FIELDS[name]) if record else None
        key = self.world.crm.put(record["id"] if record else None, **{"phone": phone, FIELDS[name]: value})
        # What a listing by modified time leaves out for ever, only a comparison of everything finds.
        self.world.crm.hidden.discard(key)
        if record is None:
            # Something of the CRM's own that no mapping names.
            self.ghost.unmapped[key] = self.world.crm.records[key]["unmapped"] = f"theirs {value}"
        self.ghost.edits.append(
            Edit(phone, name, "external", self.world.crm.records[key][FIELDS[name]], over)
        )

    def _was_intended(self, write: Write) -> None:
        """INTENT-FIRST: no write without a stored, open intent of its name."""
        assert (write.key, "open") in {(row["id"], row["state"]) for row in self.world.rows("intents")}

    def _record(self, phone: str) -> dict[str, Any] | None:
        return next((record for record in self.world.crm.records.values() if record["phone"] == phone), None)

    def _run(self, events: dict[int, str], *, pull: bool = True, dies_at: str = "") -> None:
        crm = self.world.crm
        mapping = FieldMapping(self.world.connection)
        connection = self.world.connection
        context = FaultyContext(self.engine, connection, lambda: crm, mapping, mapping, "run", crm.clock)
        crm.fault = Script(self, events, dies_at)
        try:
            with lease_held(context):
                with context.write() as tx:
                    state.ensure(tx, context.name, polling=False)
                for step in _steps(context) if pull else (push_changed,):
                    counts = step(context).counts
                    assert counts.seen == sum(v for k, v in counts.as_dict().items() if k != "seen")
        except (Crash, ConnectorError):
            pass
        finally:
            crm.fault = lambda _where: None
        self.ghost.unanswered |= {
            (row["contact_id"], _folded(value))
            for row in self.world.rows("intents")
            if row["state"] == "open"
            for value in row["sent"].values()
        }

    def _settle(self) -> None:
        after = self.world.picture()
        for _ in range(MOST_ROUNDS):
            before, writes = after, len(self.world.crm.writes)
            # Retries that are spaced out come due; a listing of everything makes up for lost time.
            self.world.crm.clock.pass_by(hours=12)
            self.world.crm.own_clock.pass_by(hours=12)
            self._run({})
            after = self.world.picture()
            if after == before and len(self.world.crm.writes) == writes:
                return
        pytest.fail(f"still moving after {MOST_ROUNDS} quiet rounds")

    def _check_agreement(self) -> None:
        """CONV, DELSAFE and LENS."""
        stored = self.world.tables("conflicts", "contacts")
        held = {(row["contact_id"], row["field"]) for row in stored["conflicts"] if row["state"] == "open"}
        contacts = {row["id"]: row for row in stored["contacts"]}
        records = {record["phone"]: record for record in self.world.crm.records.values()}
        edited = {edit.phone for edit in self.ghost.edits}
        deleted = self.ghost.deleted_here | self.ghost.deleted_there
        assert edited - set(contacts) <= deleted, "a contact is gone that nobody deleted"
        assert edited - set(records) <= deleted, "a record is gone that nobody deleted"
        for phone in set(contacts) & set(records):
            contact, record = contacts[phone], records[phone]
            assert record.get("unmapped") == self.ghost.unmapped.get(record["id"]), (
                "an unmapped field was touched"
            )
            assert contact["archived_at"] is None, "a contact is archived though its record is there"
            for name, external in FIELDS.items():
                if (phone, name) not in held:
                    ours, theirs = contact[name], record.get(external)
                    assert theirs == (self.world.crm.rewrite(external, ours) if ours else ours), (phone, name)

    def _check_every_edit(self) -> None:
        """NOLOST, SEEN and NOINVENT, for what was never deleted: a delete takes its edits along."""
        stored = self.world.tables("conflicts", "contacts")
        contacts = {row["id"]: row for row in stored["contacts"]}
        ledger = {
            (row["contact_id"], row["field"], _folded(row[side]))
            for row in stored["conflicts"]
            for side in ("external", "internal")
        }
        seen_and_replaced = {(edit.phone, edit.name, _folded(edit.over)) for edit in self.ghost.edits}
        written = {(edit.phone, edit.name, _folded(edit.value)) for edit in self.ghost.edits}
        deleted = self.ghost.deleted_here | self.ghost.deleted_there
        for edit in self.ghost.edits:
            key = (edit.phone, edit.name, _folded(edit.value))
            if edit.phone not in deleted:
                final = _folded(contacts[edit.phone][edit.name])
                assert key[2] == final or key in ledger or key in seen_and_replaced, f"{edit} was lost"
                # Nor does a value come back that somebody saw and replaced: our own echo is nobody's edit.
                undone = final is not None and _folded(edit.over) == final
                assert not undone or self._excused(edit, ledger), f"{edit} was beaten by an older value"
        for phone, contact in contacts.items():
            for name in FIELDS:
                value = contact[name]
                assert value is None or (phone, name, _folded(value)) in written, "a value nobody wrote"

    def _excused(self, edit: Edit, ledger: set[tuple[str, str, str | None]]) -> bool:
        """Whether nobody can tell if this edit replaced ours: the answer to our write was lost.

        Then the two are a conflict, and that the ledger shows both is all one can ask.
        """
        ours = (edit.phone, _folded(edit.over)) in self.ghost.unanswered
        return ours and edit.side == "external" and (edit.phone, edit.name, _folded(edit.value)) in ledger

    def _check_that_repeating_changes_nothing(self) -> None:
        """IDEMP: everything that ever landed and still counts, applied once more, moves nothing."""
        context = self.world.context()
        before, writes = self.world.picture(), len(self.world.crm.writes)
        with lease_held(context):
            with context.write() as tx:
                landing.wait_again(tx, context.name)
            apply_all(context)
            push_changed(context, just_pulled=True)
        after = self.world.picture()
        for table in ("contacts", "contact_changes", "conflicts", "contact_aliases"):
            assert after[table] == before[table], table
        assert len(self.world.crm.writes) == writes


class Wide(Narrow):
    """Three contacts, and all that can happen."""

    phones = PHONES
    steps = 20

    @rule(number=st.integers(0, 2))
    def sales_deletes(self, number: int) -> None:
        """Somebody deletes a record in the CRM."""
        record = self._record(self.phones[number % len(self.phones)])
        if record is not None:
            self.world.crm.delete(record["id"])
            self.ghost.deleted_there.add(record["phone"])

    @rule(number=st.integers(0, 2))
    def bot_deletes(self, number: int) -> None:
        """Another program deletes a contact."""
        phone = self.phones[number % len(self.phones)]
        self.world.sql("DELETE FROM contacts WHERE id = :id", id=phone)
        self.ghost.deleted_here.add(phone)

    @rule(number=st.integers(0, 2))
    def somebody_is_forgotten(self, number: int) -> None:
        """A person asks to be removed; the record stays in the CRM, where sales goes on."""
        phone = self.phones[number % len(self.phones)]
        context = self.world.context()
        with lease_held(context):
            with context.write() as tx:
                state.ensure(tx, context.name, polling=False)
            known = forget(context, [phone]) > 0
        if known:
            self.ghost.deleted_here.add(phone)
            self.ghost.deleted_there.add(phone)
            self.ghost.forgotten.add(phone)

    @invariant()
    def nothing_is_kept_of_the_forgotten(self) -> None:
        """ERASE: no copy anywhere, and no sync makes one."""
        if not self.ghost.forgotten:
            return
        kept = repr(self.world.tables(*WRITTEN_BY_SYNC, "webhook_events"))
        for phone in self.ghost.forgotten:
            assert phone not in kept, "a copy was kept of somebody who was forgotten"

    @rule(number=st.integers(0, 5), times=st.integers(1, 3))
    def hint_arrives(self, number: int, times: int) -> None:
        """A webhook names a record that is, or was; late, early or repeated, its content is hearsay."""
        self.world.crm.clock.pass_by(seconds=1)
        for _ in range(times):
            self.world.receive({"id": f"r{number:05d}", "phone": self.phones[0], "notes": "hearsay"})

    @rule(number=st.integers(0, 2))
    def listing_leaves_out(self, number: int) -> None:
        """The CRM forgets a record we know in its next listings, though it is there."""
        record = self._record(self.phones[number % len(self.phones)])
        if record is not None and record["id"] in {row["external_id"] for row in self.world.rows("links")}:
            self.world.crm.hidden.add(record["id"])


def _is_whole(stored: dict[str, list[dict[str, Any]]]) -> None:
    """ATOMIC and ACCOUNT: linked contacts are there or known to be deleted; a record has one end."""
    contacts = {row["id"] for row in stored["contacts"]}
    for link in stored["links"]:
        assert link["contact_id"] in contacts or link["contact_deleted_at"] is not None
    records = stored["external_records"]
    current = [row["external_id"] for row in records if row["current"]]
    assert len(current) == len(set(current))
    unapplied = {row["external_id"] for row in records if row["outcome"] in {"rejected", None}}
    assert {row["key"] for row in stored["rejects"] if row["source"] == "pull"} <= unapplied


def _tidied(name: str, value: Any) -> Any:
    """What a CRM makes of notes."""
    return value.strip().upper() if name == "notes" and value else value


def _folded(value: str | None) -> str | None:
    return value.casefold() if isinstance(value, str) else value


def empty(engine: Engine) -> None:
    """Remove every row."""
    with writing(engine) as tx:
        for delete in _DELETES:
            tx.execute(delete)


_DELETES = [sa.delete(table) for table in reversed(metadata.sorted_tables)]
