"""Merge: every rule of its table, and what holds for every state there can be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline.connection import Direction, Policy
from crm_pipeline.sync.coerce import Value, same
from crm_pipeline.sync.merge import (
    ABSENT,
    CONFLICTS,
    Decision,
    FieldRules,
    FieldState,
    Known,
    Side,
    Verdict,
    changed,
    merge_field,
    to_push,
)
from crm_pipeline_tests.unit.merge_rules import (
    HOUR,
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
)

# Nothing, empty, one value, the same as a CRM may rewrite it, and another.
DOMAIN: tuple[Known, ...] = (ABSENT, None, "Budi", "BUDI", "Sari")
EVERY_RULES = tuple(
    FieldRules(direction, policy, tie)
    for direction, policy, tie in product(Direction, Policy, ("external", "internal"))
    if policy is Policy.NEWEST or tie == "external"
)
BOTH_WAYS = tuple(rules for rules in EVERY_RULES if rules.direction is Direction.BOTH)
NOTHING_SETTLED = frozenset({Verdict.SAYS_NOTHING, Verdict.HELD})
OWN_WRITE = frozenset({Verdict.WRITE_CONFIRMED, Verdict.REWRITTEN})


def named(rules: FieldRules) -> str:
    """For the name of a test."""
    return f"{rules.direction}-{rules.policy}-{rules.tie}"


@lru_cache(maxsize=1)
def every_state() -> tuple[FieldState, ...]:
    """The whole product: each side, each shadow, what was sent, whether it is assumed."""
    return tuple(
        FieldState(*values, assumed=assumed, sent=sent)
        for *values, sent in product(DOMAIN, repeat=5)
        for assumed in (False, True)
    )


@lru_cache(maxsize=None)
def every_decision(rules: FieldRules) -> tuple[tuple[FieldState, Decision], ...]:
    """Settle each state."""
    return tuple((state, merge_field(state, rules)) for state in every_state())


def pushes(decision: Decision, rules: FieldRules) -> bool:
    """Whether the CRM is written to after a decision; a held field waits."""
    if decision.verdict is Verdict.HELD:
        return False
    return to_push(decision.internal, decision.internal_shadow, rules.direction)


over_all_rules = pytest.mark.parametrize("rules", EVERY_RULES, ids=named)


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


def test_a_default_that_nobody_typed_gives_way() -> None:
    """The deal status a new contact was given is no edit: the CRM's first word replaces it, unasked."""
    state = FieldState("deal", "prospect", internal_shadow="prospect")
    decision = merge_field(state, FieldRules(policy=Policy.INTERNAL))
    assert (decision.verdict, decision.internal) == (Verdict.EXTERNAL_CHANGE, "deal")


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


def test_a_write_that_did_not_arrive_is_pushed_again() -> None:
    """The CRM still shows the old value: the edit stands and goes out once more."""
    decision = merge_field(linked("Budi", "Sari", sent="Sari"), FieldRules(policy=Policy.EXTERNAL))
    assert decision.verdict is Verdict.INTERNAL_CHANGE
    assert pushes(decision, FieldRules())


def test_a_learned_spelling_is_nobodys_edit() -> None:
    """What the CRM made of our value stays unnoticed, and each side's own edit is seen beside it."""
    pair = FieldState("BUDI", "Budi", external_shadow="BUDI", internal_shadow="Budi")
    assert merge_field(pair, FieldRules()).verdict is Verdict.UNCHANGED
    assert not pushes(merge_field(pair, FieldRules()), FieldRules())
    assert merge_field(replace(pair, external="Sari"), FieldRules()).verdict is Verdict.EXTERNAL_CHANGE
    assert merge_field(replace(pair, internal="Sari"), FieldRules()).verdict is Verdict.INTERNAL_CHANGE


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


# What holds for every state.


@over_all_rules
def test_every_state_has_a_decision(rules: FieldRules) -> None:
    """Total: whatever is absent, null or a value on either side, there is one verdict and no exception."""
    found = {decision.verdict for _, decision in every_decision(rules)}
    assert len(every_decision(rules)) == len(DOMAIN) ** 5 * 2
    assert found >= {Verdict.SAYS_NOTHING, Verdict.UNCHANGED, Verdict.AGREE}


def test_every_verdict_is_reached() -> None:
    """No row of the table is dead."""
    assert {decision.verdict for rules in EVERY_RULES for _, decision in every_decision(rules)} == set(
        Verdict
    )


@over_all_rules
def test_no_value_is_invented(rules: FieldRules) -> None:
    """The contact ends with its own value or the CRM's; the shadows hold what was held or written."""
    for state, decision in every_decision(rules):
        assert decision.internal in (state.internal, state.external)
        assert decision.internal_shadow in (state.internal_shadow, state.internal, state.external, state.sent)
        assert decision.external_shadow in (state.external_shadow, state.external)


@over_all_rules
def test_no_edit_is_overwritten_without_a_trace(rules: FieldRules) -> None:
    """A value somebody typed gives way only in a conflict, whose decision names the winner."""
    for state, decision in every_decision(rules):
        if changed(state.internal, state.internal_shadow) and not _alike(decision.internal, state.internal):
            assert decision.winner == "external"
        overwritten = pushes(decision, rules) and not _alike(decision.internal, state.external)
        if overwritten and changed(state.external, state.external_shadow):
            assert decision.winner == "internal" or decision.verdict in OWN_WRITE


@over_all_rules
def test_the_loser_of_a_conflict_is_known(rules: FieldRules) -> None:
    """A conflict has a winner or waits; two different values were in it; nothing else has a winner."""
    for state, decision in every_decision(rules):
        if decision.verdict in CONFLICTS:
            assert (decision.winner is None) is (decision.verdict is Verdict.HELD)
            assert ABSENT not in (state.external, state.internal)
            assert not _alike(state.external, state.internal)
        else:
            assert decision.winner is None


@over_all_rules
def test_nothing_diverges_silently(rules: FieldRules) -> None:
    """The sides agree, or a push is due, or the difference is a learned spelling, or has no way to travel."""
    for state, decision in every_decision(rules):
        if decision.verdict in NOTHING_SETTLED:
            continue
        assert _alike(decision.external_shadow, state.external)
        if _alike(decision.internal, state.external):
            assert not pushes(decision, rules)  # nor is anything pushed that the CRM holds already
        elif not pushes(decision, rules):
            _check_lasting_difference(state, decision, rules)


def _check_lasting_difference(state: FieldState, decision: Decision, rules: FieldRules) -> None:
    if decision.verdict is Verdict.IGNORED:
        source = state.external if rules.direction is Direction.IN else state.internal
        assert rules.direction is not Direction.BOTH
        assert source in (None, ABSENT)
        return
    assert _alike(decision.internal, decision.internal_shadow)
    if decision.verdict is Verdict.UNCHANGED:  # learned earlier
        assert _alike(state.internal, state.internal_shadow)
        assert _alike(state.external, state.external_shadow)
    else:
        assert decision.verdict in OWN_WRITE


@over_all_rules
def test_what_is_open_stays_as_it_was(rules: FieldRules) -> None:
    """Where the CRM says nothing or a person must decide, contact and shadows are not touched."""
    for state, decision in every_decision(rules):
        if decision.verdict in NOTHING_SETTLED:
            before = (state.internal, state.internal_shadow, state.external_shadow, state.assumed)
            after = (decision.internal, decision.internal_shadow, decision.external_shadow, decision.assumed)
            assert after == before
        else:
            assert not decision.assumed  # the CRM has shown what it holds


@over_all_rules
def test_the_same_record_again_changes_nothing(rules: FieldRules) -> None:
    """Idempotent: after a decision was carried out, the record may come any number of times."""
    for state, decision in every_decision(rules):
        for sent in {state.sent, ABSENT}:
            again = merge_field(_carried_out(state, decision, sent), rules)
            assert (again.internal, again.internal_shadow, again.external_shadow, again.assumed) == (
                decision.internal,
                decision.internal_shadow,
                decision.external_shadow,
                decision.assumed,
            )
            assert pushes(again, rules) == pushes(decision, rules)
            assert again.winner is None or again == decision


def _carried_out(state: FieldState, decision: Decision, sent: Known) -> FieldState:
    return replace(
        state,
        internal=decision.internal,
        internal_shadow=decision.internal_shadow,
        external_shadow=decision.external_shadow,
        assumed=decision.assumed,
        sent=sent,
    )


_MIRRORED = {
    Verdict.EXTERNAL_CHANGE: Verdict.INTERNAL_CHANGE,
    Verdict.FILL_INTERNAL: Verdict.FILL_EXTERNAL,
    Verdict.EXTERNAL_WINS: Verdict.INTERNAL_WINS,
}
MIRROR = {**_MIRRORED, **{right: left for left, right in _MIRRORED.items()}}


@over_all_rules
@pytest.mark.parametrize("later", [None, "external", "internal"])
def test_the_two_sides_are_treated_alike(rules: FieldRules, later: Side | None) -> None:
    """Swap the sides, and policy, direction, tie and times with them: the mirrored thing happens."""
    times = {None: (None, None), "external": (NOON + HOUR, NOON), "internal": (NOON, NOON + HOUR)}[later]
    for external, internal, external_shadow, internal_shadow in product(DOMAIN, repeat=4):
        if ABSENT in (external, internal):
            continue
        here = FieldState(
            external, internal, external_shadow, internal_shadow, external_at=times[0], internal_at=times[1]
        )
        there = FieldState(
            internal, external, internal_shadow, external_shadow, external_at=times[1], internal_at=times[0]
        )
        one, other = merge_field(here, rules), merge_field(there, _mirrored(rules))
        assert other.verdict is MIRROR.get(one.verdict, one.verdict)
        assert _ends(here, one, rules) == _ends(there, other, _mirrored(rules))[::-1]


def _mirrored(rules: FieldRules) -> FieldRules:
    return FieldRules(
        {Direction.IN: Direction.OUT, Direction.OUT: Direction.IN}.get(rules.direction, rules.direction),
        {Policy.EXTERNAL: Policy.INTERNAL, Policy.INTERNAL: Policy.EXTERNAL}.get(rules.policy, rules.policy),
        "internal" if rules.tie == "external" else "external",
        rules.tolerance,
    )


def _ends(state: FieldState, decision: Decision, rules: FieldRules) -> tuple[Known, Known]:
    """What the CRM and the contact hold when everything is carried out."""
    external = decision.internal if pushes(decision, rules) else state.external
    return external, decision.internal


def _alike(left: Known, right: Known) -> bool:
    if ABSENT in (left, right):
        return left is right
    return same(left, right)  # type: ignore[arg-type]


# The laws of a three-way merge, for any values.

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001 - made aware below
    lambda moment: moment.replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
)
CLOSE = st.sampled_from(
    ["", " ", "Budi", "budi ", "0812 3456 789", "(0812) 3456-789", "2026-01-31T09:00:00.000000Z"]
)
VALUES: st.SearchStrategy[Value] = st.one_of(
    st.none(), st.booleans(), st.integers(0, 2**63 - 1), st.floats(-1e18, 1e18), INSTANTS, TEXTS, CLOSE
)
ANY_RULES = st.sampled_from(EVERY_RULES)
TWO_WAY_RULES = st.sampled_from(BOTH_WAYS)


@given(base=VALUES, theirs=VALUES, rules=TWO_WAY_RULES)
def test_only_the_crm_changed(base: Value, theirs: Value, rules: FieldRules) -> None:
    """merge(base, x, base) = x, under every policy."""
    decision = merge_field(linked(theirs, base, base), rules)
    assert _alike(decision.internal, theirs)
    assert not pushes(decision, rules)


@given(base=VALUES, mine=VALUES, rules=TWO_WAY_RULES)
def test_only_the_contact_changed(base: Value, mine: Value, rules: FieldRules) -> None:
    """merge(base, base, y) = y, pushed unless it means the same, under every policy."""
    decision = merge_field(linked(base, mine, base), rules)
    assert decision.internal == mine
    assert pushes(decision, rules) is not same(base, mine)


@given(base=VALUES, both=VALUES, rules=ANY_RULES)
def test_both_changed_to_the_same(base: Value, both: Value, rules: FieldRules) -> None:
    """merge(base, x, x) = x, and nobody has to be told."""
    decision = merge_field(linked(both, both, base), rules)
    assert decision.internal == both
    assert not pushes(decision, rules)


@given(values=st.tuples(VALUES, VALUES, VALUES, VALUES, VALUES), assumed=st.booleans(), rules=ANY_RULES)
def test_any_values_have_a_decision(
    values: tuple[Value, Value, Value, Value, Value],
    assumed: bool,
    rules: FieldRules,  # noqa: FBT001
) -> None:
    """Total over numbers, instants and any text, too; a field's value is one of its inputs."""
    external, internal, external_shadow, internal_shadow, sent = values
    state = FieldState(external, internal, external_shadow, internal_shadow, assumed=assumed, sent=sent)
    decision = merge_field(state, rules)
    assert decision.internal is internal or decision.internal is external
    again = merge_field(_carried_out(state, decision, ABSENT), rules)
    assert (again.internal, pushes(again, rules)) == (decision.internal, pushes(decision, rules))
