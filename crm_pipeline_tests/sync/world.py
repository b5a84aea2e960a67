"""A small world for sync tests: one database, one CRM in memory, one clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from crm_pipeline.connection import Connection
from crm_pipeline.store import state
from crm_pipeline.store.engine import reading, writing
from crm_pipeline.store.tables import contacts, metadata
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.context import Context, lease_held
from crm_pipeline.sync.events import apply_all
from crm_pipeline.sync.mapping import FieldMapping
from crm_pipeline.sync.pull import pull_new
from crm_pipeline.sync.push import push_changed
from crm_pipeline.sync.reception import Arrival, Receipt, Reception
from crm_pipeline.sync.reports import Report
from crm_pipeline_tests.fakes import FakeCrm

WRITTEN_BY_SYNC = (
    "contacts",
    "contact_aliases",
    "links",
    "external_records",
    "intents",
    "contact_changes",
    "conflicts",
    "rejects",
)


@cache
def _all_of(table: str) -> sa.Select[Any]:
    """A select of all its rows, put together once."""
    return sa.select(metadata.tables[table])


@dataclass
class World:
    """Two sides and the sync between them."""

    engine: Engine
    crm: FakeCrm = field(default_factory=FakeCrm)
    connection: Connection = field(default_factory=Connection)

    def context(self, run_id: str = "run") -> Context:
        """A worker."""
        mapping = FieldMapping(self.connection)
        return Context(
            self.engine, self.connection, lambda: self.crm, mapping, mapping, run_id, self.crm.clock
        )

    def sync(self, *, push: bool = True) -> list[Report]:
        """One run: pull, apply, push."""
        context = self.context()
        with lease_held(context):
            with context.write() as tx:
                state.ensure(tx, context.name, polling=False)
            reports = [pull_new(context), apply_landed(context)]
            just_pulled = not reports[0].resumed
            return [*reports, push_changed(context, just_pulled=just_pulled)] if push else reports

    def push(self) -> Report:
        """A run that only pushes."""
        context = self.context()
        with lease_held(context):
            with context.write() as tx:
                state.ensure(tx, context.name, polling=False)
            return push_changed(context)

    def receive(self, payload: dict[str, Any], event_id: str | None = None) -> Receipt:
        """A webhook comes in."""
        return self.receive_all([payload], event_id)[0]

    def receive_all(self, payloads: list[dict[str, Any]], event_id: str | None = None) -> list[Receipt]:
        """Webhooks come in that are landed together."""
        mapping = FieldMapping(self.connection)
        reception = Reception(self.engine, self.connection, mapping, mapping, self.crm.clock)
        return reception.receive([Arrival(payload, event_id, "request") for payload in payloads])

    def apply(self) -> Report:
        """One run that applies what has landed."""
        context = self.context()
        with lease_held(context):
            with context.write() as tx:
                state.ensure(tx, context.name, polling=False)
            return apply_all(context)

    def sql(self, statement: str, **values: Any) -> None:
        """Another program writes with plain SQL."""
        with writing(self.engine) as tx:
            tx.execute(sa.text(statement), values)

    def contact(self, contact_id: str) -> dict[str, Any]:
        """A contact as it is."""
        with reading(self.engine) as tx:
            return dict(tx.execute(sa.select(contacts).where(contacts.c.id == contact_id)).mappings().one())

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table."""
        return self.tables(table)[table]

    def tables(self, *names: str) -> dict[str, list[dict[str, Any]]]:
        """All rows of some tables, as they are at one moment."""
        with reading(self.engine) as tx:
            return {name: [dict(row) for row in tx.execute(_all_of(name)).mappings()] for name in names}

    def ids(self) -> set[str]:
        """All contacts."""
        return {row["id"] for row in self.rows("contacts")}

    def picture(self) -> dict[str, list[str]]:
        """Everything the sync may write, for saying that it wrote nothing."""
        return {
            table: sorted(repr(row) for row in rows) for table, rows in self.tables(*WRITTEN_BY_SYNC).items()
        }
