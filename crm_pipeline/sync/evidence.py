"""Evidence: the figures that rules judge, read from the database. There is no person in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from sqlalchemy.engine import Connection as Transaction
from sqlalchemy.engine import Engine

from crm_pipeline import jsonio
from crm_pipeline.connection import Connection
from crm_pipeline.store import alerts, health, landing, observations, rejects, state, traffic
from crm_pipeline.store.engine import reading, writing
from crm_pipeline.sync import sample, shape
from crm_pipeline.sync.budget import SharedBudget, Spent
from crm_pipeline.sync.health import EMPTY, Health, read_health
from crm_pipeline.sync.mapping import FieldMapping, Translator
from crm_pipeline.sync.sample import Sample
from crm_pipeline.sync.shape import Shape

Part: TypeAlias = Literal["connection", "contacts", "push"]
PARTS: tuple[Part, ...] = ("connection", "contacts", "push")
ECHO_WINDOW = timedelta(days=1)
_SHAPE = "shape"
_LOOKED_AT = 500
"""Records looked at in one go, the newest."""


@dataclass(frozen=True, slots=True)
class Reads:
    """How far the CRM was read."""

    last_read_at: datetime | None = None
    """When the latest complete read of what is new in it began."""
    watermark: datetime | None = None
    newest: datetime | None = None
    """The newest modified time among the records that this read, or one before it, has brought."""
    began_at: datetime | None = None
    """Where no read was ever complete: when the first run or the first look for alerts began."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rules look at. What nobody asked for is empty."""

    now: datetime
    polling: bool
    """The polling flag."""
    interval: timedelta
    """From one poll to the next."""
    reads: Reads = Reads()
    budget: Spent = field(default_factory=Spent)
    daily_share: float = 1.0
    """Our share of the account's calls of a day."""
    shape: Shape = field(default_factory=Shape)
    unknown_choices: int = 0
    """Records and webhooks rejected for a value that the choices of a field do not know."""
    health: Health = EMPTY
    sample: Sample = field(default_factory=Sample)
    written: int = 0
    """Fields of contacts written to the CRM in the last ``ECHO_WINDOW``."""
    came_back: int = 0
    """Of those, the ones that the CRM has changed since."""


@dataclass(frozen=True, slots=True)
class Witness:
    """Gathers evidence about one connection."""

    engine: Engine
    connection: Connection
    mapping: FieldMapping
    translator: Translator
    look: bool = True
    """Look at records and pairs that were not looked at yet; otherwise the last look counts."""

    def gather(
        self, now: datetime, interval: timedelta, part: Part | None = None, *, polling: bool
    ) -> Evidence:
        """Everything, or the part that one asset's checks need."""
        wanted = PARTS if part is None else (part,)
        found: dict[str, Any] = {}
        name = self.connection.name
        if "connection" in wanted:
            found |= self._of_connection(now)
        with reading(self.engine) as tx:
            if "contacts" in wanted:
                found["health"] = read_health(tx, self.connection)
            if "push" in wanted:
                found["written"], found["came_back"] = traffic.echoes(tx, name, now - ECHO_WINDOW)
            if "contacts" in wanted and not self.look:
                found["sample"] = sample.last(tx, name)
        if "contacts" in wanted and self.look:
            with writing(self.engine) as tx:
                found["sample"] = sample.take(tx, name, self.mapping, self.translator)
        return Evidence(now, polling, interval, **found)

    def _of_connection(self, now: datetime) -> dict[str, Any]:
        name, bounds = self.connection.name, self.connection.budget
        choices = {field.json_name for field in self.mapping.fields.values() if field.choices}
        with reading(self.engine) as tx:
            known = state.load(tx, name)
            by_reason = rejects.by_reason(tx, name)
            seen = observations.load(tx, name, _SHAPE)
            read_at = known.last_read_at if known is not None else None
            newest = health.newest_read(tx, name, read_at) if read_at is not None else None
            began_at = _began_at(tx, name) if read_at is None else None
        if self.look:
            with writing(self.engine) as tx:
                seen = self._note_shape(tx, now)
        return {
            "reads": Reads(read_at, known.watermark if known is not None else None, newest, began_at),
            "budget": SharedBudget(self.engine, name, bounds).spent(),
            "daily_share": bounds.daily_share,
            "shape": shape.judged(seen, now),
            "unknown_choices": sum(
                number
                for source, reasons, number in by_reason
                if source != "push" and not choices.isdisjoint(reasons)
            ),
        }

    def _note_shape(self, tx: Transaction, now: datetime) -> dict[str, Any]:
        name = self.connection.name
        seen = observations.locked(tx, name, _SHAPE)
        fresh = landing.newest(tx, name, seen.get("seen_to", 0), _LOOKED_AT)
        if not fresh:
            return seen
        paths = {field.name: field.parts or field.paths for field in self.mapping.fields.values()}
        records = (jsonio.loads(text) for _, text in fresh)
        objects = (record for record in records if isinstance(record, dict))
        seen = {**shape.noted(seen, objects, paths, now), "seen_to": fresh[-1][0]}
        observations.save(tx, name, _SHAPE, seen)
        return seen


def _began_at(tx: Transaction, connection: str) -> datetime | None:
    watch = alerts.watch(tx, connection)
    known = (state.first_run_at(tx, connection), watch.since if watch is not None else None)
    return min((moment for moment in known if moment is not None), default=None)
