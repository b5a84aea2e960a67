"""A vendor's account without its HTTP: contacts under the vendor's names, deletes, merges, limits, tokens."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import orjson

from crm_pipeline.simulators.badrecords import BadRecord, break_records
from crm_pipeline.simulators.contacts import generate_contacts, iso
from crm_pipeline.simulators.crm import LOG_SIZE, LoggedWrite, RefusedError, utc_now
from crm_pipeline.simulators.faults import FaultError, Faults, FaultTurns
from crm_pipeline.simulators.shelf import Row, Shelf


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """What tells one vendor's records from another's."""

    names: Mapping[str, str]
    """The vendor's name for each attribute of an invented contact; others are left out."""
    first_name: str
    last_name: str
    unique: str
    unit: timedelta
    """How exactly changes are stamped."""
    make_id: Callable[[int], str]
    links: bool = True
    """Whether a page links to the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorOptions:
    """The habits of one vendor account."""

    api_key: str = "sim-key"
    """Static token that is always taken."""
    client_id: str = "sim-client"
    client_secret: str = "sim-secret"  # noqa: S105 - of a simulator on this machine
    refresh_token: str = "sim-refresh"  # noqa: S105 - as above
    token_life: float = 3600.0
    """Seconds."""
    search_lag: float = 0.0
    """Seconds until a change shows in a search."""
    burst: int = 100
    """Calls in any ``window``."""
    window: float = 10.0
    """Seconds."""
    daily: int = 250_000
    searches: int = 5
    """In any second."""
    read_only: bool = False
    """The credentials lack what writing needs."""
    job_seconds: float = 1.0
    """How long a job is at work once its rows are there."""


@dataclass(frozen=True, slots=True)
class Removed:
    """A record that was deleted, or merged into another."""

    row: Row
    at: str
    merged_into: str | None = None


class Window:
    """Calls in any stretch of time of one length, and the most there ever were."""

    def __init__(self, limit: int, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Allow ``limit`` calls in any ``seconds``."""
        self.limit, self.seconds, self.peak = limit, seconds, 0
        self._times: deque[float] = deque()
        self._monotonic = monotonic

    def admits(self) -> bool:
        """Count a call; whether it is within the limit. One that is refused counts, too."""
        now = self._monotonic()
        while self._times and self._times[0] <= now - self.seconds:
            self._times.popleft()
        self._times.append(now)
        self.peak = max(self.peak, len(self._times))
        return len(self._times) <= self.limit

    @property
    def left(self) -> int:
        """Calls that are still free."""
        return max(0, self.limit - len(self._times))


class Tokens:
    """Access tokens given out, and until when they are good."""

    def __init__(self, options: VendorOptions, clock: Callable[[], datetime]) -> None:
        """The static token is good for ever."""
        self._options, self._clock = options, clock
        self._ends: dict[str, datetime] = {}
        self.issued = 0

    def issue(self) -> str:
        """A new token."""
        self.issued += 1
        token = f"sim.{self.issued}.{secrets.token_hex(8)}"
        self._ends[token] = self._clock() + timedelta(seconds=self._options.token_life)
        return token

    def good(self, token: str) -> bool:
        """Whether a token is taken."""
        if secrets.compare_digest(token.encode(), self._options.api_key.encode()):
            return True
        return token in self._ends and self._clock() < self._ends[token]

    def end_all(self) -> None:
        """Let every token that was given out end now."""
        self._ends.clear()

    def refuses(self, form: Mapping[str, str]) -> str:
        """Why a request for a token is refused; empty for a right one."""
        options = self._options
        if form.get("client_id") != options.client_id:
            return "client_id"
        if form.get("client_secret") != options.client_secret:
            return "client_secret"
        wrong = (
            form.get("grant_type") == "refresh_token" and form.get("refresh_token") != options.refresh_token
        )
        return "refresh_token" if wrong else ""


class VendorCrm:
    """The state of one vendor account. May be used from several threads at once."""

    def __init__(
        self,
        vendor: Vendor,
        contacts: Iterable[Mapping[str, Any]] = (),
        *,
        options: VendorOptions | None = None,
        faults: Faults | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Hold contacts given in the guide's external format."""
        self.vendor, self.options = vendor, options or VendorOptions()
        self.lock = threading.RLock()
        self.calls: Counter[str] = Counter()
        """Requests that were answered by the CRM itself, by kind."""
        self.requests = 0
        self.log: deque[LoggedWrite] = deque(maxlen=LOG_SIZE)
        self.removed: dict[str, Removed] = {}
        self.tokens = Tokens(self.options, clock)
        self.burst = Window(self.options.burst, self.options.window)
        self.used_today = 0
        self.clock = clock
        self._seq = 0
        self.shelf = Shelf(self._first_rows(contacts))
        self._broken: dict[str, BadRecord] = {}
        self.faults = faults or Faults()

    @classmethod
    def seeded(
        cls,
        vendor: Vendor,
        contacts: int = 1000,
        *,
        seed: int = 1,
        days: float = 30.0,
        options: VendorOptions | None = None,
        faults: Faults | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> Self:
        """Hold invented contacts, last changed within the ``days`` before the clock's present."""
        made = generate_contacts(contacts, seed=seed, now=clock(), days=days)
        return cls(vendor, made, options=options, faults=faults, clock=clock)

    @property
    def faults(self) -> Faults:
        """What goes wrong at present. Setting it starts all counts anew.

        Raises:
            FaultError: it cannot go wrong here.
        """
        return self._turns.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        with self.lock:
            if faults.foreign_next_link and not self.vendor.links:
                raise FaultError("foreign_next_link: this vendor's pages have no links, only page tokens")
            self._turns = FaultTurns(faults)
            rows = self.shelf.all().cut(0, len(self.shelf)) if faults.bad_record else []
            told = break_records(len(rows), faults.bad_record or 1, faults.seed, _named(rows), BROKEN)
            self._broken = dict(told)

    @property
    def broken(self) -> dict[str, str]:
        """Ids of the records handed out broken, and their kind in ``badrecords.KINDS``."""
        return {record_id: bad.kind for record_id, bad in self._broken.items()}

    @property
    def turns(self) -> FaultTurns:
        """Whose turn it is."""
        return self._turns

    def fields(self, row: Row) -> dict[str, Any]:
        """A record's fields as they are handed out, under the vendor's names."""
        bad = self._broken.get(row.id)
        if bad is None:
            return _own(row)
        told = orjson.loads(bad.raw)
        wrong = {name: told[said] for said, name in self.vendor.names.items() if said in told}
        # No other number may stand in for a wrong one.
        return {**_own(row), **({self.vendor.names["phone_1"]: None} if "phone" in told else {}), **wrong}

    def create(self, /, **fields: Any) -> dict[str, Any]:
        """Add a record; its fields with its id.

        Raises:
            RefusedError: 409, the unique value is taken.
        """
        with self.lock:
            row = self._row(self._next_seq(), None, _without_nulls(fields), self.stamp())
            self._refuse_double(row)
            self.shelf.add(row)
            return {"id": row.id, **self.fields(row)}

    def edit(self, record_id: str, /, **fields: Any) -> dict[str, Any]:
        """Change some fields of a record.

        Raises:
            RefusedError: 404, there is none; 409 as in ``create``.
        """
        with self.lock:
            old = self.row(record_id)
            whole = _without_nulls({**_own(old), **fields})
            self._broken.pop(record_id, None)
            row = self._row(old.seq, old, whole, self.stamp())
            self._refuse_double(row)
            self.shelf.replace(row)
            return {"id": row.id, **self.fields(row)}

    def delete(self, record_id: str) -> None:
        """Put a record where deleted ones are. Raises ``RefusedError`` (404) when there is none."""
        with self.lock:
            row = self.row(record_id)
            self.shelf.remove(record_id)
            self.removed[record_id] = Removed(row, self.stamp())

    def merge(self, winner: str, *losers: str) -> None:
        """Merge records into one, as a person would; it keeps its own values and takes what it lacks."""
        with self.lock:
            self.row(winner)
            taken: dict[str, Any] = {}
            for loser in losers:
                row = self.row(loser)
                taken = {**_own(row), **taken}
                self.shelf.remove(loser)
                self.removed[loser] = Removed(row, self.stamp(), winner)
            self.edit(winner, **{**taken, **_own(self.row(winner))})

    def row(self, record_id: str) -> Row:
        """One row. Raises ``RefusedError`` (404) when there is none."""
        row = self.shelf.by_id.get(record_id)
        if row is None:
            raise RefusedError(404, "not_found", "There is no contact with this id.")
        return row

    def by_unique(self, value: str) -> Row | None:
        """The record with this unique value."""
        return next(iter(self.shelf.holding(value)), None)

    def stamp(self) -> str:
        """The present, as exactly as the vendor stamps changes."""
        return _floor(self.clock(), self.vendor.unit)

    def visible_until(self) -> str:
        """Changes after it do not show in a search yet."""
        return iso(self.clock() - timedelta(seconds=self.options.search_lag) + timedelta(microseconds=1))

    def logged(self, method: str, kind: str, payload: Any, status: int) -> None:
        """Keep a write request."""
        self.log.append(LoggedWrite(method, kind, None, payload, status, iso(self.clock())))

    def stats(self) -> dict[str, Any]:
        """Everything countable, as JSON."""
        with self.lock:
            return {
                "contacts": len(self.shelf),
                "removed": len(self.removed),
                "requests": self.requests,
                "calls": dict(self.calls),
                "tokens": self.tokens.issued,
                "peak": self.burst.peak,
                "faults": dict(self._turns.struck),
            }

    def _first_rows(self, contacts: Iterable[Mapping[str, Any]]) -> Iterable[Row]:
        for contact in contacts:
            fields = {name: contact.get(said) for said, name in self.vendor.names.items() if said in contact}
            first, _, last = str(contact.get("name") or "").rpartition(" ")
            fields |= {self.vendor.first_name: first or None, self.vendor.last_name: last or None}
            changed = datetime.fromisoformat(contact["updated_at"])
            row = self._row(self._next_seq(), None, _without_nulls(fields), _floor(changed, self.vendor.unit))
            yield row

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _row(self, seq: int, old: Row | None, fields: dict[str, Any], updated_at: str) -> Row:
        created = old.record["created_at"] if old else updated_at
        raw = orjson.dumps({"fields": fields, "created_at": created})
        unique = fields.get(self.vendor.unique)
        name = old.id if old else self.vendor.make_id(seq)
        return Row(seq, name, updated_at, raw, unique if isinstance(unique, str) else None)

    def _refuse_double(self, row: Row) -> None:
        if row.unique is None:
            return
        for other in self.shelf.holding(row.unique):
            if other.id != row.id:
                raise RefusedError(409, other.id, "Another contact has this unique value.")


BROKEN = (
    "invalid_phone",
    "unknown_status",
    "negative_price",
    "fractional_capacity",
    "unknown_task_status",
    "group_chat",
)
"""How a vendor's record can be broken: it keeps its id, and numbers are numbers."""


def _own(row: Row) -> dict[str, Any]:
    """A record's fields as they are kept."""
    fields: dict[str, Any] = row.record["fields"]
    return fields


def _named(rows: Sequence[Row]) -> Callable[[int], dict[str, Any]]:
    return lambda at: {"id": rows[at].id}


def _without_nulls(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _floor(moment: datetime, unit: timedelta) -> str:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return iso(epoch + (moment - epoch) // unit * unit)
