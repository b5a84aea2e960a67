"""The CRM's side as one table: what a whole reading showed, as compactly as comparing allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, TypeAlias

import pandas as pd

from crm_pipeline.connectors.base import Record
from crm_pipeline.contact import FieldType
from crm_pipeline.store import landing
from crm_pipeline.store.landing import Arrival, Standing
from crm_pipeline.sync.arrivals import arrivals
from crm_pipeline.sync.coerce import Value
from crm_pipeline.sync.context import Context
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import Values
from crm_pipeline.sync.parity import Known
from crm_pipeline.sync.reports import Outcome

Column: TypeAlias = "pd.Series[Any]"

EVERYTHING: Final = datetime.min.replace(tzinfo=UTC)
"""As the begin of what is news: the next pull reads all there is."""
_DTYPES: Final = {FieldType.INTEGER: "Int64", FieldType.NUMBER: "Float64", FieldType.BOOLEAN: "boolean"}
_PLAIN: Final[dict[FieldType, Callable[[Any], Value]]] = {
    FieldType.INTEGER: int,
    FieldType.NUMBER: float,
    FieldType.BOOLEAN: bool,
}
_TOGETHER = 2000
"""Records that become a piece of the table together: each piece costs some kilobytes of its own."""
_REASONS = tuple(Known)
_NO_REASON = -1


def column(values: Iterable[Value], kind: FieldType) -> Column:
    """Values of one field, with a dtype that keeps integers whole and knows emptiness."""
    return pd.Series(list(values), dtype=_DTYPES.get(kind, "string"))


class Shape(Enum):
    """What a record is to the mapping."""

    READ = "it maps"
    UNFIT = "it cannot become a contact"
    LEFT_OUT = "the mapping leaves it out"
    DELETED = "it is listed as deleted"


@dataclass(frozen=True, slots=True)
class Form:
    """What kind of thing a record says; a whole table has a few forms."""

    shape: Shape
    fields: frozenset[str] = frozenset()
    """Those it says something of; of one that is unfit, those that do not fit."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record of the table."""

    external_id: str
    form: Form
    said: Values
    reason: Known | None
    """Why it may differ: it is news, it waits, or it was rejected or left out exactly as it is."""
    landed_id: int | None
    """Where the very same content landed before; None where what was read is new."""


class Listed:
    """Takes records as they are read; then answers by position.

    Kept of each are the external id, the canonical values, and three numbers.
    """

    def __init__(self, context: Context, *, land: bool) -> None:
        """Start empty; ``land``: store what is new like a pull, for the caller to apply."""
        self._context, self._land = context, land
        self.news_since = EVERYTHING
        """What was modified since then, the next pull reads by itself."""
        self._types = {name: rule.type for name, rule in context.mapping.fields.items()}
        self._columns = {rule.json_name: name for name, rule in context.mapping.fields.items()}
        self._codes: dict[Form, int] = {}
        self._pieces: list[tuple[pd.DataFrame, pd.DataFrame]] = []
        self._taken: list[tuple[str, Values, int, int, int | None]] = []
        self._values = pd.DataFrame()
        self._facts = pd.DataFrame()
        self._forms: list[Form] = []
        self._by_identity: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._values)

    def add(self, records: Sequence[Record], read_at: datetime) -> None:
        """Take records that were asked for at ``read_at``; of people who were forgotten nothing is kept."""
        arrived = list(arrivals(self._context, records, read_at))
        with self._context.read() as tx:
            known = list(landing.of_known(tx, self._context.name, arrived))
            names = [arrival.external_id for arrival in known]
            standings = landing.standings(tx, self._context.name, names)
        compared = {id(arrival) for arrival in known}
        for record, arrival in zip(records, arrived, strict=True):
            if id(arrival) in compared:
                self._take(record, arrival, standings.get(arrival.external_id))
        if self._land:
            with self._context.write() as tx:
                landing.land(tx, self._context.name, arrived, self._context.run_id)
        if len(self._taken) >= _TOGETHER:
            self._make_piece()

    def close(self) -> None:
        """Make one table of all that has been taken so far.

        A record may be listed twice, when it moved between pages. Its first sight stands: at
        the second it may wait by our own doing.
        """
        self._make_piece()
        values, facts = (pd.concat(pieces) for pieces in zip(*self._pieces, strict=True))
        first = ~values.index.duplicated()
        self._values, self._facts = values[first], facts[first]
        self._pieces = [(self._values, self._facts)]
        self._forms = list(self._codes)
        identities = self._values["id"].reset_index(drop=True).dropna()
        self._by_identity = {str(each): at for at, each in reversed(list(identities.items()))}

    def positions(self, external_ids: Sequence[str]) -> list[int]:
        """Where records stand in the table; -1 for those that are not in it."""
        found: list[int] = self._values.index.get_indexer(
            pd.Index(list(external_ids), dtype="string")
        ).tolist()
        return found

    def claims(self, identity: str) -> int:
        """Where the first record stands that claims an identity; -1 when none does."""
        return self._by_identity.get(identity, -1)

    def cells(self, name: str, positions: Sequence[int]) -> Column:
        """One field of the records at these positions; absent and null are both empty."""
        return pd.Series(self._values[name].array.take(positions))

    def says(self, name: str, positions: Sequence[int]) -> Column:
        """Whether the records at these positions say something of a field."""
        saying = [form.shape is Shape.READ and name in form.fields for form in self._forms]
        return pd.Series([saying[code] for code in self._facts["form"].array.take(positions)], dtype=bool)

    def form(self, position: int) -> Form:
        """What kind of thing the record at a position says."""
        return self._forms[int(self._facts["form"].array[position])]

    def row(self, position: int) -> Row:
        """The record at a position."""
        form, reason = self.form(position), self._facts["reason"].array[position]
        landed = self._facts["landed"].array[position]
        said = form.fields if form.shape is Shape.READ else ()
        return Row(
            external_id=str(self._values.index[position]),
            form=form,
            said={name: self._plain(name, self._values[name].array[position]) for name in said},
            reason=None if reason == _NO_REASON else _REASONS[reason],
            landed_id=None if landed is pd.NA else int(landed),
        )

    def _plain(self, name: str, cell: Any) -> Value:
        return None if cell is pd.NA else _PLAIN.get(self._types[name], str)(cell)

    def _take(self, record: Record, arrival: Arrival, standing: Standing | None) -> None:
        form, values = self._read(record)
        code = self._codes.setdefault(form, len(self._codes))
        same = standing is not None and standing.content_hash == arrival.content_hash
        reason = self._reason(record, standing, same=same)
        landed = standing.id if standing is not None and same else None
        number = _NO_REASON if reason is None else _REASONS.index(reason)
        self._taken.append((arrival.external_id, values, code, number, landed))

    def _read(self, record: Record) -> tuple[Form, Values]:
        if record.deleted:
            return Form(Shape.DELETED), {}
        try:
            values = self._context.translator.to_contact(record.payload)
        except RecordRejected as rejected:
            # Reasons go by JSON names; a hook's by whatever it likes.
            names = frozenset(self._columns.get(name, name) for name in rejected.reasons)
            return Form(Shape.UNFIT, names), {}
        return (Form(Shape.LEFT_OUT), {}) if values is None else (Form(Shape.READ, frozenset(values)), values)

    def _reason(self, record: Record, standing: Standing | None, *, same: bool) -> Known | None:
        if standing is not None and standing.outcome is None:
            return Known.WAITS
        if standing is not None and same:
            # Looked at exactly as it is: a reason, a rule or a person has kept it out.
            kept_out = {Outcome.REJECTED.value: Known.REJECTED, Outcome.SKIPPED.value: Known.RULE}
            return kept_out.get(standing.outcome or "")
        news = self.news_since == EVERYTHING or (
            record.modified_at is not None and record.modified_at >= self.news_since
        )
        return Known.NEWS if news else None

    def _make_piece(self) -> None:
        taken, self._taken = self._taken, []
        index = pd.Index([row[0] for row in taken], dtype="string")
        values = {
            name: column((row[1].get(name) for row in taken), kind).array
            for name, kind in self._types.items()
        }
        facts = {
            "form": pd.array([row[2] for row in taken], dtype="int32"),
            "reason": pd.array([row[3] for row in taken], dtype="int8"),
            "landed": pd.array([row[4] for row in taken], dtype="Int64"),
        }
        self._pieces.append((pd.DataFrame(values, index=index), pd.DataFrame(facts, index=index)))
