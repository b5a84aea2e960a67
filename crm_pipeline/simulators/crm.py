"""A simulated CRM without its HTTP: the records it holds, what people do to them, and what it counts.

``GenericCrm`` may be used from several threads at once, by tests in the same process
and by the server at the same time.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from crm_pipeline.simulators.badrecords import BadRecord, break_records
from crm_pipeline.simulators.contacts import FIRST_ID, generate_contacts, iso
from crm_pipeline.simulators.faults import Faults, FaultTurns
from crm_pipeline.simulators.options import CrmOptions
from crm_pipeline.simulators.shelf import Row, Selection, Shelf
from crm_pipeline.simulators.webhooks import WebhookSender

READ_ONLY = ("id", "created_at", "updated_at")
"""The CRM sets these; in a write they are passed over."""
WHOLE_NUMBERS = ("ticket_price", "capacity")
TEXT_MAX = 5_000
"""Characters the API takes in one attribute."""
LOG_SIZE = 10_000

_TICK = timedelta(microseconds=1)


def utc_now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class LoggedWrite:
    """One write request that reached the CRM, whatever its answer."""

    method: str
    kind: str
    """create, update (PATCH and PUT), delete or batch."""
    id: str | None
    """Record named in the path."""
    payload: Any
    """Body as sent."""
    status: int
    """Of the answer, were it to arrive."""
    at: str


class RefusedError(Exception):
    """The CRM will not do this."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """Keep what the HTTP answer says."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class _Records(Mapping[str, dict[str, Any]]):
    """The present records by id, each a fresh copy, oldest creation first."""

    def __init__(self, shelf: Shelf, lock: threading.RLock) -> None:
        self._shelf = shelf
        self._lock = lock

    def __getitem__(self, record_id: str) -> dict[str, Any]:
        with self._lock:
            return self._shelf.by_id[record_id].record

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter([row.id for row in self._shelf.created])

    def __len__(self) -> int:
        return len(self._shelf)


class GenericCrm:
    """The state and behaviour of one CRM account."""

    def __init__(
        self,
        records: Iterable[Mapping[str, Any]] = (),
        *,
        options: CrmOptions | None = None,
        faults: Faults | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Hold ``records``; those without ``id`` or ``updated_at`` (ISO with zone) are given theirs.

        ``clock`` tells the time of changes; stamps strictly increase whatever it says.

        Raises:
            ValueError: two records share an id, or a time cannot be read.
        """
        self.options = options or CrmOptions()
        self.lock = threading.RLock()
        self.calls: Counter[str] = Counter()
        """Requests that reached the CRM, by kind: list, lookup, read, create, update, delete, batch.

        One it refused for its content counts; one without the right key or spoilt by a fault does not.
        """
        self.requests = 0
        """Requests to ``/api`` of any fate, spoilt and refused ones included."""
        self.log: deque[LoggedWrite] = deque(maxlen=LOG_SIZE)
        self.webhooks = self._webhook_sender()
        self._clock = clock
        self._stamped = datetime.min.replace(tzinfo=UTC)
        self._next_id = FIRST_ID
        self._next_seq = 0
        self._broken: dict[str, BadRecord] = {}
        self._shelf = Shelf(self._initial_rows(records))
        self.records: Mapping[str, dict[str, Any]] = _Records(self._shelf, self.lock)
        """The records as the CRM means them: sound, even where it hands out broken ones."""
        self._turns = FaultTurns(Faults())
        self.faults = faults or Faults()

    @classmethod
    def seeded(
        cls,
        contacts: int = 1000,
        *,
        seed: int = 1,
        days: float = 30.0,
        options: CrmOptions | None = None,
        faults: Faults | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> GenericCrm:
        """Hold invented contacts, last changed within the ``days`` before the clock's present."""
        records = generate_contacts(contacts, seed=seed, now=clock(), days=days)
        return cls(records, options=options, faults=faults, clock=clock)

    @property
    def faults(self) -> Faults:
        """What goes wrong at present. Setting it starts all counts anew and breaks its bad records."""
        return self._turns.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        with self.lock:
            self._turns = FaultTurns(faults)
            rows = self._shelf.created
            self._broken = (
                dict(break_records(len(rows), faults.bad_record, faults.seed, lambda at: rows[at].record))
                if faults.bad_record
                else {}
            )

    @property
    def turns(self) -> FaultTurns:
        """Whose turn it is, and how often each fault struck (``turns.struck``)."""
        return self._turns

    @property
    def broken(self) -> dict[str, str]:
        """Ids of the records handed out broken, and their kind in ``badrecords.KINDS``."""
        with self.lock:
            return {record_id: bad.kind for record_id, bad in self._broken.items()}

    # --- what people and programs do to records ---------------------------------

    def create(self, /, **fields: Any) -> dict[str, Any]:
        """Add a record with a new id and return it. Nothing is checked, as in an import by hand.

        Raises:
            RefusedError: 409, the unique value is taken and ``unique_enforced`` is on.
        """
        with self.lock:
            record_id = str(self._next_id)
            stamp = self._stamp()
            row = self._row(self._next_seq, record_id, {**_writable(fields), "created_at": stamp}, stamp)
            self._refuse_double(row)
            self._next_id += 1
            self._next_seq += 1
            self._shelf.add(row)
            return self._announce(row)

    def edit(self, record_id: str, /, **fields: Any) -> dict[str, Any]:
        """Change some attributes of a record and return it. Mends a record that was handed out broken.

        Raises:
            RefusedError: 404, there is no such record; 409 as in ``create``.
        """
        with self.lock:
            old = self.row(record_id)
            return self._change(old, old.record | _writable(fields))

    def replace(self, record_id: str, /, **fields: Any) -> dict[str, Any]:
        """Put a whole record in the place of the old one; attributes not given are gone.

        Raises:
            RefusedError: as ``edit``.
        """
        with self.lock:
            old = self.row(record_id)
            return self._change(old, {**_writable(fields), "created_at": old.record.get("created_at")})

    def delete(self, record_id: str) -> None:
        """Remove a record for good. Raises ``RefusedError`` (404) when there is none."""
        with self.lock:
            self._shelf.remove(self.row(record_id).id)
            self._broken.pop(record_id, None)

    # --- what the server asks -----------------------------------------------------

    def row(self, record_id: str) -> Row:
        """One row. Raises ``RefusedError`` (404) when there is none."""
        row = self._shelf.by_id.get(record_id)
        if row is None:
            raise RefusedError(404, "not_found", "There is no contact with this id.")
        return row

    def raw(self, row: Row) -> bytes:
        """JSON text a reader is given: the record, or its broken form."""
        bad = self._broken.get(row.id)
        return row.raw if bad is None else bad.raw

    def select(self, since: str | None, before: str | None) -> Selection:
        """Rows to be listed; hold ``lock`` while using them."""
        return self._shelf.changed(since, before) if since or before else self._shelf.all()

    def lookup(self, value: str) -> list[Row]:
        """Rows whose unique attribute is this value and whose search entry has caught up.

        The value is rewritten as a stored one would be, as a CRM's own search does.
        """
        unique = self.options.rewrite.field(self.options.unique, value)
        with self.lock:
            # Stamps run ahead of a clock that stands still.
            present = max(self._clock(), self._stamped)
            horizon = present - timedelta(seconds=self.options.search_lag)
            return [row for row in self._shelf.holding(unique) if row.unique_since <= horizon]

    def now(self) -> str:
        """The CRM's clock, as it stamps time."""
        return iso(self._clock())

    def stats(self) -> dict[str, Any]:
        """Everything countable, as JSON."""
        with self.lock:
            return {
                "contacts": len(self._shelf),
                "requests": self.requests,
                "calls": dict(self.calls),
                "faults": dict(self._turns.struck),
                "broken": len(self._broken),
                "webhooks": self.webhooks.stats() if self.webhooks else None,
            }

    # --- inside ------------------------------------------------------------------------

    def _webhook_sender(self) -> WebhookSender | None:
        options = self.options
        if not options.webhooks_to:
            return None
        return WebhookSender(options.webhooks_to, options.webhook_secret, options.webhook_api_key)

    def _initial_rows(self, records: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
        for seq, given in enumerate(records):
            record = dict(given)
            record_id = str(record.pop("id", self._next_id))
            if record_id.isdecimal():
                self._next_id = max(self._next_id, int(record_id) + 1)
            changed = record.pop("updated_at", None)
            if changed is None:
                stamp = self._stamp()
            else:
                moment = datetime.fromisoformat(changed).astimezone(UTC)
                self._stamped, stamp = max(self._stamped, moment), iso(moment)
            self._next_seq = seq + 1
            yield self._row(seq, record_id, record, stamp, first=True)

    def _row(
        self, seq: int, record_id: str, fields: dict[str, Any], updated_at: str, *, first: bool = False
    ) -> Row:
        """A row of rewritten fields. A first row has always been in the search index."""
        record = {"id": record_id, **self.options.rewrite.record(fields), "updated_at": updated_at}
        unique = record.get(self.options.unique)
        unique = unique if isinstance(unique, str) else None
        row = Row(seq, record_id, updated_at, orjson.dumps(record), unique)
        if first:
            return row
        known = self._shelf.by_id.get(record_id)
        since = known.unique_since if known and known.unique == unique else self._stamped
        return Row(seq, record_id, updated_at, row.raw, unique, since)

    def _change(self, old: Row, record: dict[str, Any]) -> dict[str, Any]:
        fields = _writable(record) | {"created_at": record.get("created_at")}
        row = self._row(old.seq, old.id, fields, self._stamp())
        self._refuse_double(row)
        self._shelf.replace(row)
        self._broken.pop(row.id, None)
        return self._announce(row)

    def _refuse_double(self, row: Row) -> None:
        if not self.options.unique_enforced or row.unique is None:
            return
        if any(other.id != row.id for other in self._shelf.holding(row.unique)):
            raise RefusedError(409, "duplicate", f"Another contact has this {self.options.unique}.")

    def _announce(self, row: Row) -> dict[str, Any]:
        record = row.record
        if self.webhooks:
            self.webhooks.enqueue(record)
        return record

    def _stamp(self) -> str:
        self._stamped = max(self._clock().astimezone(UTC), self._stamped + _TICK)
        return iso(self._stamped)


def _writable(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in READ_ONLY}


def check_fields(fields: Mapping[str, Any]) -> None:
    """Refuse what the API does not take in a write.

    Raises:
        RefusedError: 422, a whole number is not one or is negative, or a text is too long.
    """
    for name, value in fields.items():
        if name in WHOLE_NUMBERS and value is not None and (type(value) is not int or value < 0):
            raise RefusedError(422, "invalid_value", f"{name} must be a whole number from 0.")
        if isinstance(value, str) and len(value) > TEXT_MAX:
            raise RefusedError(422, "too_long", f"{name} takes up to {TEXT_MAX} characters.")
