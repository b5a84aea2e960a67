"""The rules of the merge in plain words, each with a case: the tables of the documentation, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from crm_pipeline.connection import Direction, Policy
from crm_pipeline.sync.merge import ABSENT, Decision, FieldRules, FieldState, Known, Verdict, to_push

KEEPS = "keeps its value"
TAKES = "takes the CRM's value"

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Rule:
    """One row of the table, and a state it speaks of."""

    verdict: Verdict
    says: str
    changed: str
    contact: str
    pushed: str
    """Begins with yes or no."""
    written_down: str
    state: FieldState
    rules: FieldRules = field(default_factory=FieldRules)

    def row(self) -> str:
        """As the page shows it."""
        cells = (self.verdict.value, self.says, self.changed, self.contact, self.pushed, self.written_down)
        return f"| {' | '.join(cells)} |"


def linked(external: Known, internal: Known, agreed: Known = "Budi", **more: Known) -> FieldState:
    """Both sides held ``agreed`` at the last agreement."""
    return FieldState(external, internal, agreed, agreed, sent=more.get("sent", ABSENT))


RULES = (
    Rule(
        Verdict.SAYS_NOTHING,
        "nothing: the field is not in the record",
        "does not matter",
        KEEPS,
        "no; an edit that was waiting to be pushed still is",
        "nothing",
        linked(ABSENT, "Budi"),
    ),
    Rule(
        Verdict.UNCHANGED,
        "what it said before",
        "nobody",
        KEEPS,
        "no",
        "nothing",
        linked("Budi", "Budi"),
    ),
    Rule(
        Verdict.AGREE,
        "what the contact holds",
        "one side or both, to the same value",
        KEEPS,
        "no",
        "the agreement; an open conflict of the field is closed",
        linked("Sari", "Sari"),
    ),
    Rule(
        Verdict.EXTERNAL_CHANGE,
        "something new",
        "only the CRM",
        TAKES,
        "no",
        "history: old value, new value, the record that brought it",
        linked("Sari", "Budi"),
    ),
    Rule(
        Verdict.INTERNAL_CHANGE,
        "what it said before",
        "only the contact",
        KEEPS,
        "yes",
        "history: old value, new value, when the edit was first seen",
        linked("Budi", "Sari"),
    ),
    Rule(
        Verdict.FILL_INTERNAL,
        "a value",
        "first meeting; the contact is empty here",
        TAKES,
        "no",
        "history: the new value, the record that brought it",
        FieldState("Budi", None),
    ),
    Rule(
        Verdict.FILL_EXTERNAL,
        "null",
        "first meeting; the contact has a value",
        KEEPS,
        "yes",
        "history: the contact's value",
        FieldState(None, "Budi"),
    ),
    Rule(
        Verdict.WRITE_CONFIRMED,
        "what our write carried, whose end was not known",
        "the contact, and the write arrived",
        KEEPS,
        "no, unless the contact was edited again since",
        "the agreement; the write is closed as confirmed",
        linked("Sari", "Sari", sent="Sari"),
    ),
    Rule(
        Verdict.REWRITTEN,
        "what a CRM makes of the value we wrote",
        "the contact, and the CRM tidied it up",
        KEEPS,
        "no, unless the contact was edited again since",
        "the pair: our spelling here, the CRM's spelling there",
        FieldState("BUDI", " Budi ", " Budi ", " Budi ", assumed=True),
    ),
    Rule(
        Verdict.EXTERNAL_WINS,
        "something new",
        "both, differently; the policy names the CRM",
        TAKES,
        "no",
        "conflict with both values, settled; history",
        linked("Sari", "Agus"),
        FieldRules(policy=Policy.EXTERNAL),
    ),
    Rule(
        Verdict.INTERNAL_WINS,
        "something new",
        "both, differently; the policy names the contact",
        KEEPS,
        "yes",
        "conflict with both values, settled; history",
        linked("Sari", "Agus"),
        FieldRules(policy=Policy.INTERNAL),
    ),
    Rule(
        Verdict.HELD,
        "something new",
        "both, differently; the policy is manual",
        KEEPS,
        "no: this field waits until a person decides, the others go on",
        "conflict with both values, open",
        linked("Sari", "Agus"),
        FieldRules(policy=Policy.MANUAL),
    ),
    Rule(
        Verdict.NOT_TAKEN,
        "what it said before our write, which it had accepted; nobody has touched the record since",
        "the contact, and the CRM kept nothing of it",
        KEEPS,
        "no: this field waits until a person decides, the others go on",
        "conflict with both values, open, with `not taken` for its policy",
        FieldState("Budi", "Sari", "Sari", "Sari", assumed=True, replaced="Budi", untouched=True),
    ),
    Rule(
        Verdict.TAKEN_BACK,
        "what it said before our write, which it had accepted; it cannot be told who saw to that",
        "the contact, and then the CRM",
        TAKES,
        "no",
        "conflict with both values, settled, with `not taken` for its policy; history",
        FieldState("Budi", "Sari", "Sari", "Sari", assumed=True, replaced="Budi"),
    ),
    Rule(
        Verdict.IGNORED,
        "a value that may not come in, or null where nothing may go out",
        "first meeting; the side the field comes from is empty",
        KEEPS,
        "no",
        "nothing",
        FieldState("Budi", None),
        FieldRules(direction=Direction.OUT),
    ),
)


@dataclass(frozen=True)
class WrongWay:
    """What becomes of an edit on the side a one-way field does not come from."""

    direction: Direction
    edited: str
    contact: str
    pushed: str
    state: FieldState
    verdict: Verdict

    def row(self) -> str:
        """As the page shows it."""
        cells = (f"`{self.direction}`", self.edited, self.verdict.value, self.contact, self.pushed)
        return f"| {' | '.join(cells)} |"


ONE_WAY = (
    WrongWay(Direction.IN, "the CRM", TAKES, "no", linked("Sari", "Budi"), Verdict.EXTERNAL_CHANGE),
    WrongWay(Direction.IN, "the contact", TAKES, "no", linked("Budi", "Sari"), Verdict.EXTERNAL_WINS),
    WrongWay(Direction.IN, "both", TAKES, "no", linked("Sari", "Agus"), Verdict.EXTERNAL_WINS),
    WrongWay(Direction.OUT, "the contact", KEEPS, "yes", linked("Budi", "Sari"), Verdict.INTERNAL_CHANGE),
    WrongWay(Direction.OUT, "the CRM", KEEPS, "yes", linked("Sari", "Budi"), Verdict.INTERNAL_WINS),
    WrongWay(Direction.OUT, "both", KEEPS, "yes", linked("Sari", "Agus"), Verdict.INTERNAL_WINS),
)


def conflict(external_at: datetime | None, internal_at: datetime | None) -> FieldState:
    """Both sides changed a field, at these times."""
    return FieldState("Sari", "Agus", "Budi", "Budi", external_at=external_at, internal_at=internal_at)


NEWEST = (
    ("the CRM's edit is later by more than the tolerance", conflict(NOON + HOUR, NOON), "the CRM"),
    ("the contact's edit is later by more than the tolerance", conflict(NOON, NOON + HOUR), "the contact"),
    ("the two are closer than the tolerance", conflict(NOON, NOON + timedelta(minutes=1)), "the `tie`"),
    ("the CRM tells no time", conflict(None, NOON), "the `tie`"),
    ("the contact's time is not known", conflict(NOON, None), "the `tie`"),
)


def pushes(decision: Decision, rules: FieldRules) -> bool:
    """Whether the CRM is written to after a decision; a held field waits."""
    if decision.verdict in {Verdict.HELD, Verdict.NOT_TAKEN}:
        return False
    return to_push(decision.internal, decision.internal_shadow, rules.direction)
