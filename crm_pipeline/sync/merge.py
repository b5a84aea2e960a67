"""Three-way merge, pure and total: what each side said, field by field.

Two shadows stand behind each field: ``internal_shadow`` and ``external_shadow`` are
what the two sides held when they were last in agreement. They differ where the CRM
rewrites what it is given (trims, truncates, reformats); nobody's edit is ever compared
with the other side's spelling. A side has changed when it differs from its own shadow.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, Literal, TypeAlias

from crm_pipeline.connection import Direction, Policy
from crm_pipeline.sync.coerce import Value, same
from crm_pipeline.sync.rewriting import looks_rewritten


class Absent(Enum):
    """A side that says nothing about a field."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
Known: TypeAlias = Value | Absent
Side: TypeAlias = Literal["external", "internal"]


@dataclass(frozen=True, slots=True)
class FieldRules:
    """How one field is merged."""

    direction: Direction = Direction.BOTH
    policy: Policy = Policy.NEWEST
    tie: Side = "external"
    tolerance: timedelta = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class FieldState:
    """All that is known of one field when the CRM has said something about it."""

    external: Known
    internal: Known
    """ABSENT: there is no contact yet."""
    external_shadow: Known = ABSENT
    internal_shadow: Known = ABSENT
    assumed: bool = False
    """The external shadow is what we wrote; the CRM has not shown yet what it made of it."""
    replaced: Known = ABSENT
    """What that write was to replace there; ABSENT where nothing is assumed."""
    untouched: bool = False
    """The CRM says itself that nobody has touched the record since that write."""
    sent: Known = ABSENT
    """What an open intent wrote, while nobody knows whether it arrived."""
    external_at: datetime | None = None
    internal_at: datetime | None = None


class Verdict(Enum):
    """What the merge found; the table in the documentation explains each."""

    SAYS_NOTHING = "external says nothing"
    UNCHANGED = "unchanged"
    AGREE = "both say the same"
    EXTERNAL_CHANGE = "only external changed"
    INTERNAL_CHANGE = "only internal changed"
    FILL_INTERNAL = "internal was empty"
    FILL_EXTERNAL = "external was empty"
    WRITE_CONFIRMED = "our write arrived"
    REWRITTEN = "external rewrote our write"
    EXTERNAL_WINS = "conflict: external wins"
    INTERNAL_WINS = "conflict: internal wins"
    HELD = "conflict: waits for a person"
    NOT_TAKEN = "conflict: our write was not taken"
    TAKEN_BACK = "conflict: our write was taken back"
    IGNORED = "field does not travel this way"


CONFLICTS: Final = frozenset(
    {Verdict.EXTERNAL_WINS, Verdict.INTERNAL_WINS, Verdict.HELD, Verdict.NOT_TAKEN, Verdict.TAKEN_BACK}
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one field."""

    verdict: Verdict
    internal: Known
    """What the contact holds from now on."""
    internal_shadow: Known
    external_shadow: Known
    assumed: bool = False

    @property
    def winner(self) -> Side | None:
        """Of a conflict; None where it waits, or where there is none."""
        return _WINNERS.get(self.verdict)


_WINNERS: Final[dict[Verdict, Side]] = {
    Verdict.EXTERNAL_WINS: "external",
    Verdict.TAKEN_BACK: "external",
    Verdict.INTERNAL_WINS: "internal",
}


def changed(value: Known, shadow: Known) -> bool:
    """Whether a side differs from what it held at the last agreement.

    Without a shadow nothing was ever agreed: any value is news, and emptiness is not.
    """
    if value is ABSENT:
        return False
    if shadow is ABSENT:
        return value is not None
    return not same(value, shadow)


def nothing_new(external: Known, internal: Known, external_shadow: Known, internal_shadow: Known) -> bool:
    """Whether both sides hold what both held: only a write of ours under way leaves anything to decide."""
    return external == external_shadow == internal == internal_shadow


def merge_field(state: FieldState, rules: FieldRules) -> Decision:  # noqa: PLR0911 - one return for each row of the table
    """Settle one field. Total: every combination has exactly one decision."""
    external, internal = state.external, state.internal
    if external is ABSENT:
        return _keep(Verdict.SAYS_NOTHING, state)
    if internal is ABSENT:
        return _met_by_nobody(state, rules, external)
    if rules.direction is not Direction.IN and state.sent is not ABSENT and same(external, state.sent):
        return Decision(Verdict.WRITE_CONFIRMED, internal, state.sent, external)
    outside = changed(external, state.external_shadow)
    inside = changed(internal, state.internal_shadow)
    if same(internal, external):
        verdict = Verdict.AGREE if outside or inside else Verdict.UNCHANGED
        return Decision(verdict, internal, internal, external)
    if (written := _rewritten(state, rules, external)) is not ABSENT:
        return Decision(Verdict.REWRITTEN, internal, written, external)
    if outside and inside:
        return _conflict(state, rules, external, internal)
    if inside or (not outside and state.external_shadow is ABSENT):
        return _only_internal(state, rules, external, internal)
    if outside or state.internal_shadow is ABSENT:
        return _only_external(state, rules, external, internal)
    return _seen(Verdict.UNCHANGED, state, external)


def to_push(internal: Known, internal_shadow: Known, direction: Direction) -> bool:
    """Whether the CRM has still to hear of the contact's value."""
    return direction is not Direction.IN and changed(internal, internal_shadow)


def _met_by_nobody(state: FieldState, rules: FieldRules, external: Value) -> Decision:
    """There is no contact yet: it begins with what the CRM holds, where that may come in."""
    if rules.direction is Direction.OUT:
        return _seen(Verdict.IGNORED, state, external)
    return Decision(Verdict.EXTERNAL_CHANGE, external, external, external)


def _rewritten(state: FieldState, rules: FieldRules, external: Value) -> Known:
    """What we wrote, just now or before, if the CRM shows what it made of it; else ABSENT."""
    known = state.external_shadow is not ABSENT and same(external, state.external_shadow)
    if known or rules.direction is Direction.IN:
        return ABSENT
    if state.sent is not ABSENT and looks_rewritten(state.sent, external):
        return state.sent
    if not state.assumed or state.internal_shadow is ABSENT:
        return ABSENT
    # What goes out only is never taken back in: unless any answer counts as ours, a CRM
    # that rewrites in its own way would be written to for ever.
    ours = rules.direction is Direction.OUT or looks_rewritten(state.internal_shadow, external)
    return state.internal_shadow if ours else ABSENT


def _shows_what_was(state: FieldState, rules: FieldRules, external: Value) -> bool:
    """Whether the CRM, which took our write, shows what the field held before it.

    Some CRMs accept a write to a field they do not have: to take the old value for an edit
    without a word would undo ours.
    """
    replaced = state.replaced
    ours = state.assumed and rules.direction is Direction.BOTH
    return ours and replaced is not ABSENT and same(external, replaced)


def _only_internal(state: FieldState, rules: FieldRules, external: Value, internal: Value) -> Decision:
    """The contact holds something of its own; the CRM holds what it held, or nothing."""
    if rules.direction is Direction.IN:
        if external is None:
            return _seen(Verdict.IGNORED, state, external)
        return Decision(Verdict.EXTERNAL_WINS, external, external, external)
    if state.external_shadow is ABSENT:
        return _internal_stands(Verdict.FILL_EXTERNAL, internal, external)
    return _seen(Verdict.INTERNAL_CHANGE, state, external)


def _only_external(state: FieldState, rules: FieldRules, external: Value, internal: Value) -> Decision:
    """The CRM holds something new; the contact holds what it held, or nothing."""
    if rules.direction is Direction.OUT:
        if internal is None:
            return _seen(Verdict.IGNORED, state, external)
        return _internal_stands(Verdict.INTERNAL_WINS, internal, external)
    if _shows_what_was(state, rules, external):
        if state.untouched:
            return _keep(Verdict.NOT_TAKEN, state)
        return Decision(Verdict.TAKEN_BACK, external, external, external)
    first = state.internal_shadow is ABSENT
    verdict = Verdict.FILL_INTERNAL if first else Verdict.EXTERNAL_CHANGE
    return Decision(verdict, external, external, external)


def _conflict(state: FieldState, rules: FieldRules, external: Value, internal: Value) -> Decision:
    """Both sides hold something new: where a field goes one way only, its source wins."""
    ruled = {Direction.IN: Policy.EXTERNAL, Direction.OUT: Policy.INTERNAL}
    policy = ruled.get(rules.direction, rules.policy)
    if policy is Policy.MANUAL:
        return _keep(Verdict.HELD, state)
    if _external_wins(policy, state, rules):
        return Decision(Verdict.EXTERNAL_WINS, external, external, external)
    return _internal_stands(Verdict.INTERNAL_WINS, internal, external)


def _external_wins(policy: Policy, state: FieldState, rules: FieldRules) -> bool:
    """Whether the CRM's value stands; where the clocks cannot tell, the tie does."""
    if policy is not Policy.NEWEST:
        return policy is Policy.EXTERNAL
    if state.external_at is None or state.internal_at is None:
        return rules.tie == "external"
    if abs(state.external_at - state.internal_at) <= rules.tolerance:
        return rules.tie == "external"
    return state.external_at > state.internal_at


def _keep(verdict: Verdict, state: FieldState) -> Decision:
    return Decision(verdict, state.internal, state.internal_shadow, state.external_shadow, state.assumed)


def _seen(verdict: Verdict, state: FieldState, external: Value) -> Decision:
    """Nothing changes, but the CRM has now shown what it holds."""
    return Decision(verdict, state.internal, state.internal_shadow, external)


def _internal_stands(verdict: Verdict, internal: Value, external: Value) -> Decision:
    """The contact keeps its value; the pair becomes what the CRM holds, so that it is pushed."""
    return Decision(verdict, internal, external, external)
