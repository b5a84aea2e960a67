"""Merge: what holds for every state there can be, whatever the policy and the direction."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline import instants
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
    nothing_new,
)
from crm_pipeline_tests.unit.merge_rules import HOUR, NOON, linked, pushes

# Nothing, empty, one value, the same as a CRM may rewrite it, and another.
DOMAIN: tuple[Known, ...] = (ABSENT, None, "Budi", "BUDI", "Sari")
TIES: tuple[Side, ...] = ("external", "internal")
EVERY_RULES = tuple(
    FieldRules(direction, policy, tie)
    for direction, policy, tie in product(Direction, Policy, TIES)
    if policy is Policy.NEWEST or tie == "external"
)
BOTH_WAYS = tuple(rules for rules in EVERY_RULES if rules.direction is Direction.BOTH)
NOTHING_SETTLED = frozenset({Verdict.SAYS_NOTHING, Verdict.HELD, Verdict.NOT_TAKEN})
ASSUMED: tuple[tuple[bool, Known, bool], ...] = (
    (False, ABSENT, False),
    (True, ABSENT, False),
    (True, "Budi", False),
    (True, "Budi", True),
    (True, None, True),
)
"""Whether the external shadow is assumed, what our write was to replace, and whether nobody came after it."""
OWN_WRITE = frozenset({Verdict.WRITE_CONFIRMED, Verdict.REWRITTEN})


def named(rules: FieldRules) -> str:
    """For the name of a test."""
    return f"{rules.direction}-{rules.policy}-{rules.tie}"


@cache
def every_state() -> tuple[FieldState, ...]:
    """The whole product: each side, each shadow, what was sent, what is assumed."""
    return tuple(
        FieldState(external, internal, external_shadow, internal_shadow, *assumed, sent)
        for external, internal, external_shadow, internal_shadow, sent in product(DOMAIN, repeat=5)
        for assumed in ASSUMED
    )


@cache
def every_decision(rules: FieldRules) -> tuple[tuple[FieldState, Decision], ...]:
    """Settle each state."""
    return tuple((state, merge_field(state, rules)) for state in every_state())


over_all_rules = pytest.mark.parametrize("rules", EVERY_RULES, ids=named)


@over_all_rules
def test_every_state_has_a_decision(rules: FieldRules) -> None:
    """Total: whatever is absent, null or a value on either side, there is one verdict and no exception."""
    found = {decision.verdict for _, decision in every_decision(rules)}
    assert len(every_decision(rules)) == len(DOMAIN) ** 5 * len(ASSUMED)
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
            assert (decision.winner is None) is (decision.verdict in {Verdict.HELD, Verdict.NOT_TAKEN})
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
INSTANTS = st.datetimes(datetime(2000, 1, 1), timezones=st.just(UTC)).map(instants.to_text)  # noqa: DTZ001 - as asked
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


@given(one=VALUES, other=VALUES, places=st.tuples(*[st.booleans()] * 4), rules=ANY_RULES)
def test_what_is_passed_over_would_change_nothing(
    one: Value, other: Value, places: tuple[bool, bool, bool, bool], rules: FieldRules
) -> None:
    """Where all four are the same, the merge itself finds nothing, under any rules."""
    external, internal, external_shadow, internal_shadow = (one if place else other for place in places)
    if nothing_new(external, internal, external_shadow, internal_shadow):
        decision = merge_field(FieldState(external, internal, external_shadow, internal_shadow), rules)
        assert decision.verdict is Verdict.UNCHANGED
        kept = (decision.internal, decision.internal_shadow, decision.external_shadow)
        assert kept == (internal, internal_shadow, external_shadow)
    else:
        assert len({external, internal, external_shadow, internal_shadow}) > 1


@given(values=st.tuples(VALUES, VALUES, VALUES, VALUES, VALUES), assumed=st.booleans(), rules=ANY_RULES)
def test_any_values_have_a_decision(
    values: tuple[Value, Value, Value, Value, Value],
    assumed: bool,  # noqa: FBT001 - drawn by hypothesis
    rules: FieldRules,
) -> None:
    """Total over numbers, instants and any text, too; a field's value is one of its inputs."""
    external, internal, external_shadow, internal_shadow, sent = values
    state = FieldState(external, internal, external_shadow, internal_shadow, assumed=assumed, sent=sent)
    decision = merge_field(state, rules)
    assert decision.internal is internal or decision.internal is external
    again = merge_field(_carried_out(state, decision, ABSENT), rules)
    assert (again.internal, pushes(again, rules)) == (decision.internal, pushes(decision, rules))
