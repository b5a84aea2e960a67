"""A CRM in memory that speaks the connector protocol, with faults where a test wants them."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from crm_pipeline.connectors.base import (
    CrmField,
    CrmUnavailableError,
    Page,
    Record,
    Resume,
    Window,
    Write,
    WriteResult,
    WriteStatus,
)
from crm_pipeline.store import leases


class Crash(BaseException):
    """The worker dies here."""


def dead_holder(mark: str = "") -> str:
    """Who held a lease on this host, and is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    place, _, _ = leases.new_holder().rsplit("/", 2)
    return f"{place}/{process.pid}/{mark}"


class FakeClock:
    """A clock that moves when told, and a little with every look."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.moment = start

    def __call__(self) -> datetime:
        """Tell the time."""
        self.moment += timedelta(milliseconds=1)
        return self.moment

    def pass_by(self, **amount: float) -> None:
        """Let time pass."""
        self.moment += timedelta(**amount)


def no_fault(_where: str) -> None:
    """Nothing goes wrong."""


@dataclass
class FakeCrm:
    """Records by id. ``rewrite`` is what the CRM makes of what it is given."""

    clock: FakeClock = field(default_factory=FakeClock)
    """Ours: the worker's."""
    own_clock: FakeClock = field(default_factory=FakeClock)
    """The CRM's."""
    page_size: int = 100
    batch_size: int = 100
    reads_by_modified: bool = True
    answers_with_record: bool = True
    answers_with_time: bool = False
    """Where the record is not shown: its modified time, and nothing else."""
    can_find: bool = True
    checks_expected: bool = True
    """Refuses to overwrite a record that has changed since it was read."""
    unique: bool = True
    """Refuses a second record with the same phone, and names the first."""
    reads_ahead: bool = False
    """Of a listing, the next page has come already."""
    rewrite: Callable[[str, Any], Any] = lambda _name, value: value
    fault: Callable[[str], None] = no_fault
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: int = 0
    writes: list[Write] = field(default_factory=list)
    merged: dict[str, str] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    """Records that listings leave out, though they are there."""
    on_write: Callable[[Write], None] = lambda _write: None
    """Told of each write before it is made."""
    refuse: dict[str, WriteResult] = field(default_factory=dict)
    """Answers for the next write to these external ids (or keys of contacts)."""
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, external_id: str | None = None, **values: Any) -> str:
        """A CRM user creates or edits a record."""
        key = external_id or f"r{next(self._ids):05d}"
        known = self.records.setdefault(key, {"id": key})
        known.update({name: self.rewrite(name, value) for name, value in values.items()})
        known["updated_at"] = self.own_clock().isoformat()
        return key

    def delete(self, external_id: str) -> None:
        """A CRM user deletes a record."""
        del self.records[external_id]

    def merge(self, loser: str, winner: str) -> None:
        """A CRM user merges two records: the loser's id answers with the winner from now on."""
        del self.records[loser]
        self.merged[loser] = winner
        self.put(winner)

    def record(self, external_id: str) -> Record:
        """A record as a connector gives it."""
        payload = dict(self.records[external_id])
        return Record(payload, external_id, datetime.fromisoformat(payload["updated_at"]))

    @property
    def bulk(self) -> None:
        """No jobs."""

    def pages(self, window: Window, resume: Resume | None = None) -> Iterator[Page]:
        """Oldest change first."""
        start = resume["at"] if resume else 0
        while True:
            self.fault("page")
            self.calls += 1
            read_at = self.clock()
            inside = self._listed(window)
            part = tuple(self.record(key) for key in inside[start : start + self.page_size])
            start += self.page_size
            more = start < len(inside)
            place = {"at": start} if more else None
            yield Page(part, read_at, place, self.own_clock(), followed=more and self.reads_ahead)
            if not more:
                return

    def _listed(self, window: Window) -> list[str]:
        since = window.since.isoformat() if window.since and self.reads_by_modified else ""
        found = [
            (record["updated_at"], key)
            for key, record in self.records.items()
            if record["updated_at"] >= since
        ]
        return [key for _, key in sorted(found) if key not in self.hidden]

    def read(self, external_ids: Sequence[str]) -> list[Record]:
        """By id."""
        self.fault("read")
        self.calls += 1
        now = [self.merged.get(key, key) for key in external_ids]
        return [self.record(key) for key in dict.fromkeys(now) if key in self.records]

    def schema(self) -> list[CrmField] | None:
        """It does not describe itself."""
        return None

    def find(self, unique_value: str) -> list[Record] | None:
        """By phone; of several threads that ask for it, one after the other."""
        if not self.can_find:
            return None
        with self._lock:
            self.fault("find")
            self.calls += 1
            records = self.records.items()
            return [self.record(key) for key, record in records if record.get("phone") == unique_value]

    def write(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Upsert; of several threads that ask for it, one after the other."""
        with self._lock:
            self.fault("before write")
            self.calls += 1
            results = [self._write_one(write) for write in writes]
            self.fault("after write")
            return results

    def _write_one(self, write: Write) -> WriteResult:
        self.fault("one write")
        self.on_write(write)
        self.writes.append(write)
        answer = self.refuse.pop(write.external_id or "", None)
        if answer is not None:
            return answer
        if write.external_id is not None and write.external_id not in self.records:
            return WriteResult(WriteStatus.GONE, reason="no such record")
        if write.external_id is not None and self.checks_expected and self._has_changed(write):
            return WriteResult(WriteStatus.CHANGED, write.external_id)
        if write.external_id is None and self.unique:
            for key, record in self.records.items():
                if record.get("phone") == write.changes["phone"]:
                    return WriteResult(WriteStatus.REFUSED, key, reason="exists already")
        key = self.put(write.external_id, **write.changes)
        shown = self.record(key) if self.answers_with_record else None
        if shown is None and self.answers_with_time:
            shown = Record({}, key, self.record(key).modified_at)
        return WriteResult(WriteStatus.WRITTEN, key, shown)

    def _has_changed(self, write: Write) -> bool:
        at = self.record(write.external_id or "").modified_at
        return write.expected is not None and at != write.expected

    def refuses_writes(self) -> str | None:
        """Nobody can tell without writing. See ``Connector.refuses_writes``."""
        return None

    def close(self) -> None:
        """Nothing to give back."""


def unavailable(where: str) -> None:
    """A fault: the CRM cannot be reached."""
    raise CrmUnavailableError(where)
