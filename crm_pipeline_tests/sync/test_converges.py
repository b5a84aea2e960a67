"""The sync as a whole, against everything that can happen to it: it converges and loses nothing.

A state machine makes users edit both sides in any order while syncs run, crash, and meet
failing calls. Every edit writes a value nobody wrote before, and remembers the value it
replaced. After quiet rounds each edit must be found: on both sides, or replaced by a user
who saw it, or in the ledger of conflicts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.engine import Engine

from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import ConnectorError, CrmUnavailableError, WriteResult, WriteStatus
from crm_pipeline.store import leases, state
from crm_pipeline.store.engine import open_database, writing
from crm_pipeline.store.tables import metadata
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.context import Context, lease_held
from crm_pipeline.sync.mapping import FieldMapping
from crm_pipeline.sync.pull import pull_new
from crm_pipeline.sync.push import push_changed
from crm_pipeline_tests.databases import Databases
from crm_pipeline_tests.fakes import Crash, FakeClock, FakeCrm
from crm_pipeline_tests.sync.world import World

FIELDS = {"notes": "notes", "nama": "name"}
"""Contact field -> the CRM's name for it."""
PHONES = [f"62811000000{number:02d}@c.us" for number in range(3)]
MOST_ROUNDS = 6
import os
from hypothesis import Phase

PHASES = [Phase.generate] if os.environ.get("NOSHRINK") else [Phase.generate, Phase.shrink]


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

    machine: TwoSides
    events: dict[int, str]
    passed: int = 0

    def __call__(self, where: str) -> None:
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
            self.machine.somebody_edits(event, where)


@dataclass
class Ghost:
    """What users did."""

    edits: list[Edit] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))


class TwoSides(RuleBasedStateMachine):
    """Three contacts at most, two fields, two sides."""

    engine: ClassVar[Engine]
    phones: ClassVar[list[str]] = PHONES
    policies: ClassVar[list[str]] = ["external", "internal", "newest", "manual"]

    def __init__(self) -> None:
        super().__init__()
        _empty(self.engine)
        self.ghost = Ghost()
        self.world = World(self.engine, FakeCrm(clock=FakeClock(), page_size=2, batch_size=2))

    @initialize(
        policy=st.sampled_from(["external", "internal", "newest", "manual"]),
        answers=st.booleans(),
        can_find=st.booleans(),
        by_modified=st.booleans(),
        rewriting=st.booleans(),
        unique=st.booleans(),
        checks=st.booleans(),
    )
    def begin(
        self,
        policy: str,
        answers: bool,
        can_find: bool,
        by_modified: bool,
        rewriting: bool,
        unique: bool,
        checks: bool,
    ) -> None:  # noqa: FBT001
        """Any kind of CRM, any policy."""
        self.world.connection = Connection.model_validate({"merge": {"policy": policy}})
        crm = self.world.crm
        crm.unique, crm.checks_expected = unique, checks
        crm.answers_with_record, crm.can_find, crm.reads_by_modified = answers, can_find, by_modified
        if rewriting:
            crm.rewrite = lambda name, value: value.strip().upper() if name == "notes" and value else value

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
            st.integers(0, 24),
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

    @rule(status=st.sampled_from([WriteStatus.FAILED, WriteStatus.UNKNOWN]), number=st.integers(0, 2))
    def next_write_fails(self, status: WriteStatus, number: int) -> None:
        """The CRM will refuse one record's next write for a passing cause, or not say."""
        phone = self.phones[number % len(self.phones)]
        record = self._record(phone)
        if record is not None:
            self.world.crm.refuse[record["id"]] = WriteResult(status, reason="busy")

    @invariant()
    def nobody_is_doubled(self) -> None:
        """At no moment is there a second contact or record for one phone."""
        phones = [record["phone"] for record in self.world.crm.records.values()]
        assert len(phones) == len(set(phones)), "a record was doubled in the CRM"

    def teardown(self) -> None:
        """Users stop and faults end: the two sides meet, every edit is accounted for, and then nothing moves."""
        self.world.crm.refuse.clear()
        try:
            self._settle()
            self._check_agreement()
            self._check_every_edit()
        finally:
            super().teardown()

    # Inside.

    def somebody_edits(self, event: str, where: str) -> None:
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
        elif where == "page" or (
            self.world.crm.checks_expected if self._record(phone) else self.world.crm.unique
        ):
            self._edit_external(phone, "notes")

    def _edit_internal(self, phone: str, name: str) -> None:
        value = f"bot {next(self.ghost.numbers)}"
        found = [row for row in self.world.rows("contacts") if row["id"] == phone]
        over = found[0][name] if found else None
        if found:
            self.world.sql(f"UPDATE contacts SET {name} = :value WHERE id = :id", value=value, id=phone)
        else:
            self.world.sql(f"INSERT INTO contacts (id, {name}) VALUES (:id, :value)", value=value, id=phone)
        self.ghost.edits.append(Edit(phone, name, "internal", value, over))

    def _edit_external(self, phone: str, name: str) -> None:
        value = f"sales {next(self.ghost.numbers)}"
        record = self._record(phone)
        over = record.get(FIELDS[name]) if record else None
        key = self.world.crm.put(record["id"] if record else None, **{"phone": phone, FIELDS[name]: value})
        self.ghost.edits.append(
            Edit(phone, name, "external", self.world.crm.records[key][FIELDS[name]], over)
        )

    def _record(self, phone: str) -> dict[str, Any] | None:
        return next((record for record in self.world.crm.records.values() if record["phone"] == phone), None)

    def _run(self, events: dict[int, str], *, pull: bool = True) -> None:
        crm = self.world.crm
        mapping = FieldMapping(self.world.connection)
        context = FaultyContext(self.engine, self.world.connection, crm, mapping, mapping, "run", crm.clock)
        crm.fault = Script(self, events)
        try:
            with lease_held(context):
                with context.write() as tx:
                    state.ensure(tx, context.name, polling=False)
                pushed = partial(push_changed, just_pulled=True) if pull else push_changed
                for step in [*([pull_new, apply_landed] if pull else []), pushed]:
                    counts = step(context).counts
                    assert counts.seen == sum(v for k, v in counts.as_dict().items() if k != "seen")
        except (Crash, ConnectorError):
            pass
        finally:
            crm.fault = lambda _where: None

    def _settle(self) -> None:
        for _ in range(MOST_ROUNDS):
            before, writes = self.world.picture(), len(self.world.crm.writes)
            # Retries that are spaced out come due; a listing of everything makes up for lost time.
            self.world.crm.clock.pass_by(hours=12)
            self.world.crm.own_clock.pass_by(hours=12)
            self._run({})
            if self.world.picture() == before and len(self.world.crm.writes) == writes:
                return
        pytest.fail(f"still moving after {MOST_ROUNDS} quiet rounds")

    def _check_agreement(self) -> None:
        held = {
            (row["contact_id"], row["field"])
            for row in self.world.rows("conflicts")
            if row["state"] == "open"
        }
        contacts = {row["id"]: row for row in self.world.rows("contacts")}
        records = {record["phone"]: record for record in self.world.crm.records.values()}
        assert set(contacts) == set(records) == {edit.phone for edit in self.ghost.edits}
        for phone, contact in contacts.items():
            for name, external in FIELDS.items():
                if (phone, name) in held:
                    continue
                ours, theirs = contact[name], records[phone].get(external)
                assert theirs == (self.world.crm.rewrite(external, ours) if ours else ours), (phone, name)

    def _check_every_edit(self) -> None:
        contacts = {row["id"]: row for row in self.world.rows("contacts")}
        ledger = {
            (row["contact_id"], row["field"], _folded(row[side]))
            for row in self.world.rows("conflicts")
            for side in ("external", "internal")
        }
        seen_and_replaced = {(edit.phone, edit.name, _folded(edit.over)) for edit in self.ghost.edits}
        written = {(edit.phone, edit.name, _folded(edit.value)) for edit in self.ghost.edits}
        for edit in self.ghost.edits:
            key = (edit.phone, edit.name, _folded(edit.value))
            final = _folded(contacts[edit.phone][edit.name])
            assert key[2] == final or key in ledger or key in seen_and_replaced, f"{edit} was lost"
        for phone, contact in contacts.items():
            for name in FIELDS:
                value = contact[name]
                assert value is None or (phone, name, _folded(value)) in written, "a value nobody wrote"


def _folded(value: str | None) -> str | None:
    return value.casefold() if isinstance(value, str) else value


def _empty(engine: Engine) -> None:
    with writing(engine) as tx:
        for table in reversed(metadata.sorted_tables):
            tx.execute(sa.delete(table))


@pytest.fixture
def quick_engine(databases: Databases) -> Iterator[Engine]:
    """A database that need not survive a power cut."""
    with databases.fresh() as url:
        engine = open_database(url)
        if engine.dialect.name == "sqlite":
            sa.event.listen(
                engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF")
            )
        yield engine
        engine.dispose()


def test_wide(quick_engine: Engine) -> None:
    """Three contacts, all that can happen."""
    machine = type("Wide", (TwoSides,), {"engine": quick_engine})
    run_state_machine_as_test(
        machine, settings=settings(stateful_step_count=20, report_multiple_bugs=False, phases=PHASES)
    )


def test_narrow(quick_engine: Engine) -> None:
    """One contact, so that crashes and edits fall densely on the same fields."""
    machine = type("Narrow", (TwoSides,), {"engine": quick_engine, "phones": PHONES[:1]})
    run_state_machine_as_test(
        machine, settings=settings(stateful_step_count=15, report_multiple_bugs=False, phases=PHASES)
    )
