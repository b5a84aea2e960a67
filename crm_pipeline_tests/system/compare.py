"""Both sides compared field by field, by code that shares nothing with the sync."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from crm_pipeline_tests.system.stage import OtherProgram, Stage

PLAIN = {
    "nama": "name",
    "instansi": "company",
    "event": "event_name",
    "ticket_price": "ticket_price",
    "capacity": "capacity",
    "notes": "notes",
    "cp_first": "phone_1",
    "ig_link": "instagram",
    "pic": "sales_rep",
    "status": "task_status",
}
"""Columns and the CRM's attributes that hold the very same value."""
DATES = {"meeting_date": "meeting_date", "ticket_sale_date": "sale_date", "event_day_date": "event_date"}
STATUSES = {"negotiation": "negotiating", "closed": "deal"}
_COLUMNS = ("deal_status", *PLAIN, *DATES)


@dataclass(frozen=True, slots=True)
class Sides:
    """What a comparison found."""

    records: int
    contacts: int
    lost: int
    """Records without a contact that holds the same, without a link, or without a current landed row."""
    doubled: int
    """Records, contacts, links and current landed rows beyond one for each phone."""


def contact_id(phone: str) -> str:
    """The id of the contact with this phone."""
    return re.sub(r"\D", "", phone) + "@c.us"


def compare(stage: Stage, but: Collection[str] = ()) -> Sides:
    """Compare the CRM with the database, records ``but`` these ids, which must have no contact."""
    sql = stage.other.sql
    records = {key: record for key, record in stage.crm.records.items() if key not in but}
    expected = {key: (contact_id(record["phone"]), _held(record)) for key, record in records.items()}
    rows = sql(f"SELECT id, {', '.join(_COLUMNS)} FROM contacts")  # noqa: S608 - our own words
    contacts = {key: _plain(values) for key, *values in rows}
    links = sql("SELECT external_id, contact_id FROM links")
    linked = dict(links)
    landed = Counter(key for (key,) in sql("SELECT external_id FROM external_records WHERE current"))
    lost = sum(
        contacts.get(contact) != held or linked.get(key) != contact or not landed[key]
        for key, (contact, held) in expected.items()
    )
    phones = {contact for contact, _ in expected.values()}
    doubled = (
        len(records)
        - len(phones)
        + len(contacts.keys() - phones)
        + max(0, len(links) - len(phones))
        + max(0, landed.total() - len(stage.crm.records))
    )
    return Sides(len(records), len(contacts), lost, doubled)


def _held(record: dict[str, Any]) -> list[Any]:
    """A record's values in the order of ``_COLUMNS``."""
    status = STATUSES.get(record["status"], record["status"]) if "status" in record else "prospect"
    dates = [_moment(record.get(name)) for name in DATES.values()]
    return [status, *(record.get(name) for name in PLAIN.values()), *dates]


def _plain(values: list[Any]) -> list[Any]:
    """A row's values in the order of ``_COLUMNS``."""
    return [*values[: -len(DATES)], *map(_moment, values[-len(DATES) :])]


def _moment(value: str | datetime | None) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Edit:
    """A user wrote ``value`` where ``over`` stood."""

    contact: str
    column: str
    value: str
    over: Any


_NUMBERS = itertools.count()


@dataclass(slots=True)
class Edits:
    """What users wrote on both sides, each value only once ever; and what became of it."""

    stage: Stage
    made: list[Edit] = field(default_factory=list)

    def here(self, column: str, contacts: Iterable[str]) -> None:
        """Another program changes a column of contacts, all in one statement."""
        chosen = sorted(contacts)
        marks = ", ".join("?" * len(chosen))
        old = dict(
            self.stage.other.sql(f"SELECT id, {column} FROM contacts WHERE id IN ({marks})", *chosen)  # noqa: S608
        )
        word = f"here {next(_NUMBERS)} "
        self.stage.other.sql(
            f"UPDATE contacts SET {column} = ? || id WHERE id IN ({marks})",  # noqa: S608
            word,
            *chosen,
        )
        self.made += [Edit(contact, column, word + contact, old[contact]) for contact in chosen]

    def there(self, column: str, external_id: str) -> None:
        """A user of the CRM changes an attribute of a record."""
        crm, name = self.stage.crm, PLAIN[column]
        with crm.lock:
            record = crm.records[external_id]
            value = f"there {next(_NUMBERS)} {external_id}"
            crm.edit(external_id, **{name: value})
        self.made.append(Edit(contact_id(record["phone"]), column, value, record.get(name)))

    def lost(self) -> list[Edit]:
        """Edits that are on neither side, that nobody who saw them replaced, and no ledger knows."""
        columns = sorted({edit.column for edit in self.made})
        rows = self.stage.other.sql(f"SELECT id, {', '.join(columns)} FROM contacts")  # noqa: S608
        known = {
            (key, name, value) for key, *values in rows for name, value in zip(columns, values, strict=True)
        }
        known |= {(edit.contact, edit.column, edit.over) for edit in self.made}
        ledger = self.stage.other.sql("SELECT contact_id, field, external, internal FROM conflicts")
        for contact, name, *values in ledger:
            known |= {(contact, name, json.loads(value)) for value in values if value is not None}
        return [edit for edit in self.made if (edit.contact, edit.column, edit.value) not in known]


SYNCED = (
    "contacts",
    "contact_aliases",
    "links",
    "external_records",
    "intents",
    "contact_changes",
    "conflicts",
    "rejects",
)
"""Tables that hold what was synced; the others hold how far a sync has come."""


class RowWrites:
    """Counts rows of the synced tables that anybody inserts, updates or deletes."""

    def __init__(self, other: OtherProgram) -> None:
        """Begin to count."""
        self._other, self._before = other, 0
        if other.kind == "sqlite":
            other.sql("CREATE TABLE row_writes (name TEXT)")
            for table in SYNCED:
                for change in ("INSERT", "UPDATE", "DELETE"):
                    name, at = f"count_{table}_{change}", f"AFTER {change} ON {table}"
                    insert = f"INSERT INTO row_writes VALUES ('{table}')"  # noqa: S608 - our own words
                    other.sql(f"CREATE TRIGGER {name} {at} BEGIN {insert}; END")
        self._before = self._all()

    def number(self) -> int:
        """Row writes since this was asked last."""
        now = self._all()
        new, self._before = now - self._before, now
        return new

    def _all(self) -> int:
        if self._other.kind == "sqlite":
            return int(self._other.sql("SELECT count(*) FROM row_writes")[0][0])
        # A backend reports its figures when it ends, shortly after its client has.
        alone = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        while self._other.sql(alone) != [(1,)]:
            continue
        marks = ", ".join("?" * len(SYNCED))
        sums = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables"
        return int(self._other.sql(f"{sums} WHERE relname IN ({marks})", *SYNCED)[0][0])
