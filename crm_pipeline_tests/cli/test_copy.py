"""`db copy`: everything moves to another database, either way, exactly, or nothing does."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection, make_url

from crm_pipeline.store import leases
from crm_pipeline.store.copying import TABLES
from crm_pipeline.store.engine import open_database, reading, writing
from crm_pipeline.store.fitting import fits
from crm_pipeline.store.tables import contact_changes, contacts, external_records, step_totals, tokens
from crm_pipeline.store.types import Instant, Json, OpenJson
from crm_pipeline_tests.cli.conftest import Cli
from crm_pipeline_tests.databases import PostgresDatabases, SqliteDatabases

PERSON = "6281234567001@c.us"
HOSTILE = "Ana \U0001f600 'x' \"y\" \\N \t\r\n -- ; $1 %s {} \u202e\u0301 \x01"
EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
SEALED = "gAAAA-sealed-marker"


@dataclass(frozen=True)
class Pair:
    """A database to copy from and one to copy to, migrated and empty."""

    source: str
    target: str


@pytest.fixture(params=["sqlite to postgresql", "postgresql to sqlite"])
def pair(
    request: pytest.FixtureRequest, sqlite_databases: SqliteDatabases, postgresql_databases: PostgresDatabases
) -> Iterator[Pair]:
    """Either way."""
    with sqlite_databases.fresh() as lite, postgresql_databases.fresh() as postgres:
        yield Pair(lite, postgres) if request.param.startswith("sqlite") else Pair(postgres, lite)


@contextmanager
def _using(url: str) -> Iterator[Connection]:
    engine = open_database(url)
    try:
        with writing(engine) as tx:
            yield tx
    finally:
        engine.dispose()


def _fill(url: str, people: int = 0) -> None:
    """Rows with everything a column can hold on both."""
    awkward: list[dict[str, Any]] = [
        {
            "id": PERSON,
            "nama": HOSTILE,
            "ticket_price": 2**63 - 1,
            "capacity": -(2**63),
            "meeting_date": EARLIEST,
            "event_day_date": LATEST,
            "custom": {"a": [1, {"ü": 1.5, "big": 2**70}], "": None, "text": HOSTILE},
            "created_at": LATEST,
            "updated_at": EARLIEST,
            "row_version": 7,
            "pushed_version": 3,
        },
        {"id": "628\\N", "nama": "", "custom": {}},
    ]
    plain = [
        {"id": f"62800000{number:05}@c.us", "nama": f"Person {number}", "custom": {"n": number}}
        for number in range(people)
    ]
    with _using(url) as tx:
        for each in awkward:
            tx.execute(contacts.insert().values(each))
        if plain:
            tx.execute(contacts.insert(), plain)
        tx.execute(tokens.insert().values(connection="default", sealed=SEALED))
        tx.execute(
            external_records.insert().values(
                id=2**40,
                connection="default",
                external_id="1",
                content_hash="x",
                payload='{"name": "\\u0000 \\ud800"}',
                deleted=False,
                read_at=LATEST,
                run_id="",
                current=True,
            )
        )
        for name, amount in (("calls", 22), ("seconds", 0.1), ("most", 1e300)):
            total = {"connection": "default", "step": "pull", "name": name, "amount": amount}
            tx.execute(step_totals.insert().values(total))
        change = {"connection": "default", "contact_id": PERSON, "at": EARLIEST, "side": "internal"}
        tx.execute(
            contact_changes.insert().values(
                field="nama", old=None, new=HOSTILE, rule="r", run_id="", **change
            )
        )


def test_every_kind_of_column_is_known_to_the_check() -> None:
    """One that is not is taken for text, and refuses every row."""
    known = (Instant, Json, OpenJson, sa.Boolean, sa.Integer, sa.Float, sa.Text)
    kinds = {column: column.type for table in TABLES for column in table.columns}
    assert [str(column) for column, kind in kinds.items() if not isinstance(kind, known)] == []
    assert fits(step_totals.c.amount, "postgresql")(0.5) == ""
    assert fits(step_totals.c.amount, "postgresql")("0.5") == "is no number"


def _rows(url: str, table: sa.Table) -> list[Any]:
    with _using(url) as tx:
        return sorted(tx.execute(sa.select(table)).all(), key=repr)


def test_every_row_arrives_as_it_was(cli: Cli, pair: Pair) -> None:
    """Awkward text, the first and the last instant, the largest integers, nulls: equal on both sides."""
    _fill(pair.source, people=2500)
    answer = cli("db", "copy", "--from", pair.source, "--to", pair.target, "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.json["tables"]["contacts"]["rows"] == 2502
    for table in TABLES:
        assert _rows(pair.target, table) == _rows(pair.source, table)
    assert SEALED not in answer.out


def test_new_rows_are_numbered_after_the_copied(cli: Cli, pair: Pair) -> None:
    """The next landed record gets a number of its own, and in an empty table the first is 1."""
    _fill(pair.source)
    assert cli("db", "copy", "--from", pair.source, "--to", pair.target).code == 0
    values = {"connection": "default", "external_id": "2", "content_hash": "x", "payload": "{}"}
    more = {"deleted": False, "read_at": LATEST, "run_id": "", "current": True}
    with _using(pair.target) as tx:
        new = tx.execute(external_records.insert().values(**values, **more)).inserted_primary_key
        assert new is not None
        assert new[0] == 2**40 + 1


def test_the_copy_of_a_copy_has_the_same_checksums(
    cli: Cli, pair: Pair, sqlite_databases: SqliteDatabases
) -> None:
    """A checksum is of what rows say, not of how a database keeps them."""
    _fill(pair.source, people=10)
    first = cli("db", "copy", "--from", pair.source, "--to", pair.target, "--json")
    with sqlite_databases.fresh() as third:
        second = cli("db", "copy", "--from", pair.target, "--to", third, "--json")
    assert first.json == second.json


def test_a_target_with_rows_is_refused(cli: Cli, pair: Pair) -> None:
    """Twice the same copy: the second says what is there, and changes nothing."""
    _fill(pair.source)
    assert cli("db", "copy", "--from", pair.source, "--to", pair.target).code == 0
    again = cli("db", "copy", "--from", pair.source, "--to", pair.target)
    assert (again.code, again.out) == (1, "")
    assert again.err.startswith("The target is not empty: it has rows in ")
    assert "contacts" in again.err


def test_another_shape_is_refused(cli: Cli, pair: Pair) -> None:
    """Neither side is brought up to date by a copy: it says which one is to be."""
    with _using(pair.target) as tx:
        tx.execute(sa.text("UPDATE crm_pipeline_version SET version_num = '0001'"))
    answer = cli("db", "copy", "--from", pair.source, "--to", pair.target)
    assert answer.code == 1
    assert answer.err.startswith("The target is at 0001, this version needs ")


def test_a_source_at_work_is_refused(cli: Cli, pair: Pair) -> None:
    """Somebody holds the lease: what they write after the copy would be lost."""
    with _using(pair.source) as tx:
        assert leases.take(tx, "default", leases.new_holder(), datetime.now(UTC) + timedelta(seconds=1))
    answer = cli("db", "copy", "--from", pair.source, "--to", pair.target)
    assert (answer.code, answer.err.split(":")[0]) == (1, "Somebody works on the source")


@pytest.mark.parametrize(
    "column, value, problem",
    [
        ("nama", b"\x00\xff", "contacts.nama is no text"),
        ("nama", "a\0b", "contacts.nama holds a zero character"),
        ("capacity", "many", "contacts.capacity is no such integer"),
        ("capacity", 1.5, "contacts.capacity is no such integer"),
        ("meeting_date", "soon", "contacts.meeting_date is no time"),
        ("custom", "{broken", "contacts.custom is no JSON"),
        ("custom", '{"a": "\\u0000"}', "contacts.custom holds a zero character"),
        ("custom", '{"a": "\\ud800"}', "contacts.custom is no valid Unicode"),
        ("custom", '{"a": NaN}', "contacts.custom is no JSON"),
    ],
)
def test_what_postgresql_cannot_hold_is_named(
    cli: Cli,
    sqlite_databases: SqliteDatabases,
    postgresql_databases: PostgresDatabases,
    column: str,
    value: Any,
    problem: str,
) -> None:
    """SQLite takes anything from other programs. The copy names column, fault and number, not the value."""
    with sqlite_databases.fresh() as source, postgresql_databases.fresh() as target:
        _fill(source, people=3)
        with closing(sqlite3.connect(str(make_url(source).database))) as database, database:
            database.execute(f"UPDATE contacts SET {column} = ? WHERE nama LIKE 'Person%'", (value,))  # noqa: S608
        answer = cli("db", "copy", "--from", source, "--to", target)
        assert answer.code == 1
        assert answer.err.splitlines()[1:] == [f"  {problem}: 3"]
        assert all(not _rows(target, table) for table in TABLES)


def test_text_that_is_no_utf8_is_named(
    cli: Cli, sqlite_databases: SqliteDatabases, postgresql_databases: PostgresDatabases
) -> None:
    """The driver's own message would quote the person's text."""
    with sqlite_databases.fresh() as source, postgresql_databases.fresh() as target:
        _fill(source)
        with closing(sqlite3.connect(str(make_url(source).database))) as database, database:
            database.execute("UPDATE contacts SET notes = CAST(x'6869ff' AS TEXT) WHERE nama <> ''")
        answer = cli("db", "copy", "--from", source, "--to", target)
    assert answer.err.splitlines()[1:] == ["  contacts.notes is no valid Unicode: 1"]


def test_neither_password_nor_a_new_file_shows(cli: Cli, tmp_path: Path) -> None:
    """A wrong URL is not repeated, a server that is away is one line, and no SQLite file appears."""
    missing = f"sqlite:///{tmp_path}/none.db"
    wrong = cli("db", "copy", "--from", "oracle://u:s3cr3t@h/d", "--to", missing)
    assert (wrong.code, "s3cr3t" in wrong.err) == (2, False)
    answers = [
        cli("db", "copy", "--from", missing, "--to", "postgresql://u:s3cr3t@127.0.0.1:1/crm"),
        cli("db", "copy", "--from", "postgresql://u:s3cr3t@127.0.0.1:1/crm", "--to", missing),
    ]
    assert [answer.code for answer in answers] == [1, 1]
    assert "s3cr3t" not in "".join(answer.out + answer.err for answer in answers)
    assert not (tmp_path / "none.db").exists()


def test_reading_sees_one_moment(pair: Pair) -> None:
    """What is written while a copy goes on is in none of its tables."""
    _fill(pair.source)
    source, target = open_database(pair.source), open_database(pair.target)
    from crm_pipeline.store.copying import move  # noqa: PLC0415 - stands for the command, with a moment to write

    def write_meanwhile(done: int, _total: int | None) -> None:
        if done == 0:
            return
        with writing(source) as tx:
            tx.execute(sa.update(tokens).values(sealed="later"))

    try:
        moved = {each.table: each.rows for each in move(source, target, write_meanwhile)}
        with reading(target) as tx:
            assert tx.execute(sa.select(tokens.c.sealed)).scalars().all() == [SEALED]
        assert moved["tokens"] == 1
    finally:
        source.dispose()
        target.dispose()
