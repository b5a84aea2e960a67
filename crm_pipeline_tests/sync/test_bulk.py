"""Bulk: what goes in comes out, on both databases, and lists of any length find what they should."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from crm_pipeline.store import bulk
from crm_pipeline.store.bulk import one_of
from crm_pipeline.store.contacts import oddly_spelled
from crm_pipeline.store.engine import reading, writing
from crm_pipeline.store.tables import CURRENT, contacts, external_records

HOSTILE = (
    "",
    "\\",
    "\\N",
    "\t",
    "a\nb\r\n",
    "'; DROP TABLE contacts --",
    "{1,2}",
    "ไทย 🎟",
    '"',
    "\\.",
    "NULL",
)
AT = datetime(2026, 1, 31, 9, 0, 0, 1, tzinfo=UTC)


def row(key: str, **values: Any) -> dict[str, Any]:
    """A contact's row."""
    return {"id": key, "notes": None, "capacity": None, "meeting_date": None, "custom": {}, **values}


def stored(engine: Engine) -> dict[str, Any]:
    """Contacts by id."""
    with reading(engine) as tx:
        return {each.id: each for each in tx.execute(sa.select(contacts))}


def test_what_goes_in_comes_out(engine: Engine) -> None:
    """Text of any kind, null and empty, large numbers, moments and objects."""
    rows = [row(f"{n}@c.us", notes=text, custom={"text": text}) for n, text in enumerate(HOSTILE)]
    rows.append(row("rest@c.us", capacity=2**63 - 1, meeting_date=AT))
    with writing(engine) as tx:
        bulk.insert(tx, contacts, rows)
    found = stored(engine)
    for each in rows:
        kept = found[each["id"]]
        assert (kept.notes, kept.capacity, kept.meeting_date, kept.custom) == (
            each["notes"],
            each["capacity"],
            each["meeting_date"],
            each["custom"],
        )
        assert (kept.deal_status, kept.row_version) == ("prospect", 1)  # what no row names has its default


def test_rows_that_share_a_value_each_have_it(engine: Engine) -> None:
    """The same object again, and an equal one."""
    again = datetime(2026, 1, 31, 9, 0, 0, 1, tzinfo=UTC)
    values = (AT, AT, None, AT, again)
    rows = [row(f"{n}@c.us", meeting_date=value) for n, value in enumerate(values)]
    with writing(engine) as tx:
        bulk.insert(tx, contacts, rows)
    assert tuple(each.meeting_date for _, each in sorted(stored(engine).items())) == values


def test_a_refused_row_adds_none(engine: Engine) -> None:
    """The error is SQLAlchemy's own, as callers know it."""
    with pytest.raises(IntegrityError), writing(engine) as tx:
        bulk.insert(tx, contacts, [row("1@c.us"), row("2@c.us"), row("1@c.us")])
    assert stored(engine) == {}


def test_rows_are_changed_by_their_keys(engine: Engine) -> None:
    """Those that are named, in the columns that are named."""
    with writing(engine) as tx:
        bulk.insert(tx, contacts, [row(f"{n}@c.us", notes="before", capacity=n) for n in range(4)])
        changes = [
            {"id": f"{n}@c.us", "notes": text, "meeting_date": AT} for n, text in enumerate(HOSTILE[:3])
        ]
        bulk.update(tx, contacts, ("id",), [*changes, {"id": "nobody", "notes": "", "meeting_date": None}])
    found = stored(engine)
    assert [found[f"{n}@c.us"].notes for n in range(4)] == [*HOSTILE[:3], "before"]
    assert [found[f"{n}@c.us"].meeting_date for n in range(4)] == [AT, AT, AT, None]
    assert [found[f"{n}@c.us"].capacity for n in range(4)] == [0, 1, 2, 3]


def test_no_rows_are_no_statement(engine: Engine) -> None:
    """Nothing to add is no error."""
    with writing(engine) as tx:
        bulk.insert(tx, contacts, [])
        bulk.update(tx, contacts, ("id",), [])
    assert stored(engine) == {}


def test_a_list_may_be_long_and_hold_anything(engine: Engine) -> None:
    """More values than SQLite takes parameters; an empty list finds nothing."""
    keys = [f"{text}{n}@c.us" for n, text in enumerate(HOSTILE)]
    with writing(engine) as tx:
        bulk.insert(tx, contacts, [row(key) for key in keys])
    asked = [*keys[1:], *(f"nobody-{n}" for n in range(40_000))]
    query = sa.select(contacts.c.id)
    with reading(engine) as tx:
        assert set(tx.execute(query.where(one_of(contacts.c.id, asked))).scalars()) == set(keys[1:])
        assert set(tx.execute(query.where(~one_of(contacts.c.id, asked))).scalars()) == {keys[0]}
        both = one_of(contacts.c.id, keys[:1]) | one_of(contacts.c.id, keys[-1:])
        assert set(tx.execute(query.where(both)).scalars()) == {keys[0], keys[-1]}
        assert list(tx.execute(query.where(one_of(contacts.c.id, []))).scalars()) == []
        named = {"ids": keys[:2]}
        assert set(tx.execute(query.where(one_of(contacts.c.id, "ids")), named).scalars()) == set(keys[:2])


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
def test_a_current_record_is_found_by_its_index(engine: Engine) -> None:
    """SQLite would look at all records, with each page of a pull, where it is asked for the column."""
    named = one_of(external_records.c.external_id, ["1"])
    query = sa.select(external_records.c.id).where(external_records.c.connection == "c", CURRENT, named)
    text = query.compile(engine, compile_kwargs={"literal_binds": True})
    with reading(engine) as tx:
        assert "uq_external_records_current" in str(tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all())


def test_odd_spellings_are_found_without_a_look_at_all_contacts(engine: Engine) -> None:
    """They are asked for with each group of webhooks; a table that another program filled may be large."""
    asked: list[tuple[str, Any]] = []
    with writing(engine) as tx:
        bulk.insert(tx, contacts, [row(f"62811{n:07}@c.us") for n in range(5000)])
        bulk.insert(tx, contacts, [row("+62 811-1")])
        if engine.dialect.name == "postgresql":
            tx.exec_driver_sql("ANALYZE contacts")

        def note(_connection: Any, _cursor: Any, text: str, values: Any, *_: Any) -> None:
            asked.append((text, values))

        sa.event.listen(tx, "before_cursor_execute", note)
        assert oddly_spelled(tx, "", 10) == ["+62 811-1"]
        text, values = asked[0]
        explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
        assert "ix_contacts_oddly_spelled" in str(tx.exec_driver_sql(f"{explain} {text}", values).all())
