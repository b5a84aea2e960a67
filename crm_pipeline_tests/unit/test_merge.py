"""Merge: every rule of its table, and the cases it was made for."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline.connection import Direction, Policy
from crm_pipeline.sync.coerce import Value
from crm_pipeline.sync.merge import (
    ABSENT,
    CONFLICTS,
    FieldRules,
    FieldState,
    Side,
    Verdict,
    merge_field,
    to_push,
)
from crm_pipeline_tests.unit.merge_rules import (
    KEEPS,
    NEWEST,
    NOON,
    ONE_WAY,
    RULES,
    TAKES,
    Rule,
    WrongWay,
    conflict,
    linked,
    pushes,
)

OWN_WRITE = frozenset({Verdict.WRITE_CONFIRMED, Verdict.REWRITTEN})

# The table.


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.verdict.value))
def test_a_rule_of_the_table(rule: Rule) -> None:
    """What the documentation's table says of a verdict is what the merge does."""
    decision = merge_field(rule.state, rule.rules)
    assert decision.verdict is rule.verdict
    assert decision.internal == {KEEPS: rule.state.internal, TAKES: rule.state.external}[rule.contact]
    assert pushes(decision, rule.rules) is rule.pushed.startswith("yes")
    moves = decision.internal != rule.state.internal or pushes(decision, rule.rules)
    learns = decision.internal_shadow != rule.state.internal_shadow or decision.assumed != rule.state.assumed
    assert rule.written_down.partition(" ")[0] == (
        "conflict"
        if decision.verdict in CONFLICTS
        else "history:"
        if moves
        else "the"  # agreement, or pair
        if learns
        else "nothing"
    )


@pytest.mark.parametrize("case", ONE_WAY, ids=lambda case: f"{case.direction}-{case.edited}")
@pytest.mark.parametrize("policy", Policy)
def test_a_field_that_goes_one_way_has_one_source(case: WrongWay, policy: Policy) -> None:
    """Whatever the policy: the source wins, and an edit on the other side is undone and written down."""
    rules = FieldRules(case.direction, policy)
    decision = merge_field(case.state, rules)
    assert decision.verdict is case.verdict
    assert decision.internal == {KEEPS: case.state.internal, TAKES: case.state.external}[case.contact]
    assert pushes(decision, rules) is (case.pushed == "yes")


@pytest.mark.parametrize("case, state, winner", NEWEST, ids=[case for case, _, _ in NEWEST])
@pytest.mark.parametrize("tie", ["external", "internal"])
def test_newest_takes_the_later_edit_and_guesses_nothing(
    case: str,  # noqa: ARG001 - names the test
    state: FieldState,
    winner: str,
    tie: Side,
) -> None:
    """The later edit wins where the clocks can tell; else the named side."""
    decision = merge_field(state, FieldRules(policy=Policy.NEWEST, tie=tie))
    assert decision.winner == {"the CRM": "external", "the contact": "internal", "the `tie`": tie}[winner]


@given(
    gap=st.timedeltas(timedelta(0), timedelta(days=400)),
    tolerance=st.timedeltas(timedelta(0), timedelta(hours=2)),
    hours_east=st.integers(-12, 14),
)
def test_newest_goes_by_instants_up_to_the_tolerance(
    gap: timedelta, tolerance: timedelta, hours_east: int
) -> None:
    """A difference equal to the tolerance is still a tie, and the zone a time is told in is no matter."""
    later = (NOON + gap).astimezone(timezone(timedelta(hours=hours_east)))
    cases: tuple[tuple[Side, datetime, datetime, Side], ...] = (
        ("internal", later, NOON, "external"),
        ("external", NOON, later, "internal"),
    )
    for tie, external_at, internal_at, by_time in cases:
        rules = FieldRules(policy=Policy.NEWEST, tie=tie, tolerance=tolerance)
        decision = merge_field(conflict(external_at, internal_at), rules)
        assert decision.winner == (tie if gap <= tolerance else by_time)


@pytest.mark.parametrize("tie", ["external", "internal"])
def test_a_time_nobody_gave_is_not_known(tie: Side) -> None:
    """One time alone is not later than nothing."""
    for state in (
        FieldState("Sari", "Agus", "Budi", "Budi", external_at=NOON),
        FieldState("Sari", "Agus", "Budi", "Budi", internal_at=NOON),
    ):
        assert merge_field(state, FieldRules(tie=tie)).winner == tie


def test_a_default_that_nobody_typed_gives_way() -> None:
    """The deal status a new contact was given is no edit: the CRM's first word replaces it, unasked."""
    state = FieldState("deal", "prospect", internal_shadow="prospect")
    decision = merge_field(state, FieldRules(policy=Policy.INTERNAL))
    assert (decision.verdict, decision.internal) == (Verdict.EXTERNAL_CHANGE, "deal")


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("value", ["Budi", None, 0])
def test_a_contact_that_does_not_exist_yet_begins_with_what_may_come_in(
    direction: Direction, value: Value
) -> None:
    """It takes what the CRM holds, null too, but nothing of a field that goes out only."""
    decision = merge_field(FieldState(value, ABSENT), FieldRules(direction))
    taken = ABSENT if direction is Direction.OUT else value
    assert (decision.internal, decision.internal_shadow, decision.external_shadow) == (taken, taken, value)
    assert not pushes(decision, FieldRules(direction))


def test_zero_false_and_empty_text_are_values() -> None:
    """Only null is empty: 0, false and empty text replace, are pushed, and contradict."""
    for value in (0, False, ""):
        agreed = linked(value, "x", "x")
        assert merge_field(agreed, FieldRules()).internal == value
        assert to_push(value, "x", Direction.BOTH)
        assert to_push(value, ABSENT, Direction.BOTH)
        first = merge_field(FieldState(value, "x"), FieldRules(policy=Policy.MANUAL))
        assert first.verdict is Verdict.HELD
    assert not to_push(None, ABSENT, Direction.BOTH)


def test_an_edit_made_after_a_write_is_pushed_though_the_write_is_confirmed() -> None:
    """Our own older value coming back is no edit of the CRM's, and does not undo the newer one."""
    for external in ("Sari", "SARI"):
        decision = merge_field(linked(external, "Agus", sent="Sari"), FieldRules(policy=Policy.EXTERNAL))
        assert decision.verdict in OWN_WRITE
        assert (decision.internal, decision.internal_shadow) == ("Agus", "Sari")
        assert pushes(decision, FieldRules())


def test_an_older_write_that_was_tidied_up_is_no_edit_while_a_newer_one_is_open() -> None:
    """The CRM shows what it made of the write before the last: the last is pushed again, no conflict."""
    state = FieldState("BUDI", "Sari", "Budi", "Budi", assumed=True, sent="Sari")
    decision = merge_field(state, FieldRules(policy=Policy.EXTERNAL))
    assert (decision.verdict, decision.internal) == (Verdict.REWRITTEN, "Sari")
    assert pushes(decision, FieldRules())


def test_a_write_that_did_not_arrive_is_pushed_again() -> None:
    """The CRM still shows the old value: the edit stands and goes out once more."""
    decision = merge_field(linked("Budi", "Sari", sent="Sari"), FieldRules(policy=Policy.EXTERNAL))
    assert decision.verdict is Verdict.INTERNAL_CHANGE
    assert pushes(decision, FieldRules())


def test_an_edit_of_case_only_that_did_not_arrive_is_no_rewriting() -> None:
    """The CRM shows exactly what it held before the write: it has made nothing of it yet."""
    decision = merge_field(linked("Budi", "BUDI", sent="BUDI"), FieldRules())
    assert decision.verdict is Verdict.INTERNAL_CHANGE
    assert pushes(decision, FieldRules())


def test_an_edit_in_the_crm_right_after_our_write_is_an_edit() -> None:
    """Not everything the CRM shows next is what it made of our value."""
    after_write = FieldState("Sari", "Budi", "Budi", "Budi", assumed=True)
    assert merge_field(after_write, FieldRules()).verdict is Verdict.EXTERNAL_CHANGE
    note = "A note about the concert in March, and the stage"
    longer = FieldState(f"{note} plan", note, note, note, assumed=True)
    assert merge_field(longer, FieldRules()).verdict is Verdict.EXTERNAL_CHANGE
    assert (
        merge_field(replace(longer, assumed=False, sent=note), FieldRules()).verdict is not Verdict.REWRITTEN
    )
    edited_since = replace(after_write, internal="Agus")
    assert merge_field(edited_since, FieldRules(policy=Policy.EXTERNAL)).verdict is Verdict.EXTERNAL_WINS


def test_a_learned_spelling_is_nobodys_edit() -> None:
    """What the CRM made of our value stays unnoticed, and each side's own edit is seen beside it."""
    pair = FieldState("BUDI", "Budi", external_shadow="BUDI", internal_shadow="Budi")
    assert merge_field(pair, FieldRules()).verdict is Verdict.UNCHANGED
    assert not pushes(merge_field(pair, FieldRules()), FieldRules())
    assert merge_field(replace(pair, external="Sari"), FieldRules()).verdict is Verdict.EXTERNAL_CHANGE
    assert merge_field(replace(pair, internal="Sari"), FieldRules()).verdict is Verdict.INTERNAL_CHANGE
    assert merge_field(replace(pair, internal="BUDI"), FieldRules()).verdict is Verdict.AGREE
    assert merge_field(replace(pair, external="Budi"), FieldRules()).verdict is Verdict.AGREE


def test_a_rewriting_is_looked_for_only_right_after_our_write() -> None:
    """Once the CRM has shown what it holds, another case or a shorter text is somebody's edit."""
    assert merge_field(linked("BUDI", "Budi"), FieldRules()).verdict is Verdict.EXTERNAL_CHANGE


@pytest.mark.parametrize("policy", Policy)
def test_a_crm_that_rewrites_what_it_is_sent_in_its_own_way_is_not_written_to_for_ever(
    policy: Policy,
) -> None:
    """A field that goes out only: whatever the CRM shows first after a write is what it made of it."""
    after_write = FieldState("<b>Budi</b>", "Budi", "Budi", "Budi", assumed=True)
    rules = FieldRules(Direction.OUT, policy)
    decision = merge_field(after_write, rules)
    assert (decision.verdict, decision.internal) == (Verdict.REWRITTEN, "Budi")
    assert not pushes(decision, rules)


def test_without_knowing_what_was_replaced_nothing_is_suspected() -> None:
    """A value the CRM shows after our write is an edit, unless it is the very one that stood there before."""
    emptied = FieldState(None, "Sari", "Sari", "Sari", assumed=True)
    assert (emptied.replaced, emptied.untouched) == (ABSENT, False)
    assert merge_field(emptied, FieldRules()).verdict is Verdict.EXTERNAL_CHANGE
    assert merge_field(replace(emptied, replaced=None), FieldRules()).verdict is Verdict.TAKEN_BACK
    assert merge_field(replace(emptied, replaced="Budi"), FieldRules()).verdict is Verdict.EXTERNAL_CHANGE
    untouched = replace(emptied, replaced=None, untouched=True)
    assert merge_field(untouched, FieldRules()).verdict is Verdict.NOT_TAKEN
    assert merge_field(replace(untouched, assumed=False), FieldRules()).verdict is Verdict.EXTERNAL_CHANGE
    one_way = FieldRules(direction=Direction.IN)
    assert merge_field(untouched, one_way).verdict is Verdict.EXTERNAL_CHANGE
