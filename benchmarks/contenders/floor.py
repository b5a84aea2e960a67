"""The least a program can do: ask page by page, map, and upsert one table; or send batches and count.

No landing table, no links, no history, nothing that survives a crash.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import psycopg
import requests
from report import said, tell

TEXTS = ("company", "event_name", "notes", "phone_1", "sales_rep", "task_status", "instagram", "status")
NUMBERS = ("ticket_price", "capacity")
TIMES = ("meeting_date", "sale_date", "event_date", "updated_at")
COLUMNS = ("phone", "id", "name", *TEXTS, *NUMBERS, *TIMES)
BATCH = 100


def pages(url: str) -> Iterator[list[dict[str, Any]]]:
    """The listing, page by page."""
    with requests.Session() as session:
        cursor = "1"
        while cursor:
            answer = session.get(url, params={"cursor": cursor, "limit": "1000"}, timeout=30)
            found = orjson.loads(answer.content)
            yield found["records"]
            cursor = str(found["next_cursor"] or "")


def row(record: dict[str, Any]) -> tuple[Any, ...]:
    """A record's columns, numbers as numbers and times in UTC."""
    take = record.get
    numbers = (int(value) if (value := take(name)) is not None else None for name in NUMBERS)
    times = (
        datetime.fromisoformat(value).astimezone(UTC).isoformat() if (value := take(name)) else None
        for name in TIMES
    )
    return (take("phone"), take("id"), take("name"), *(take(name) for name in TEXTS), *numbers, *times)


_NAMES = ", ".join(COLUMNS)
_SET = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
_NEW = ", ".join(f"excluded.{name}" for name in COLUMNS)
_TABLE = f"CREATE TABLE IF NOT EXISTS floor (phone text PRIMARY KEY, {' text, '.join(COLUMNS[1:])} text)"


def sqlite(path: str, url: str) -> int:
    """Upsert, a page to a transaction, durable; rows that are the same stay as they are."""
    database = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        database.execute(f"PRAGMA {pragma}")
    database.execute(_TABLE)
    old = ", ".join(f"floor.{name}" for name in COLUMNS)
    upsert = (
        f"INSERT INTO floor VALUES ({', '.join('?' * len(COLUMNS))}) "  # noqa: S608 - our own names
        f"ON CONFLICT DO UPDATE SET {_SET} WHERE ({old}) IS NOT ({_NEW})"
    )
    rows = 0
    for page in pages(url):
        database.execute("BEGIN IMMEDIATE")
        database.executemany(upsert, [row(record) for record in page])
        database.execute("COMMIT")
        rows += len(page)
    return rows


def postgresql(dsn: str, url: str) -> int:
    """Copy to a table of its own and upsert from there, a page to a transaction."""
    old = ", ".join(f"floor.{name}" for name in COLUMNS)
    upsert = (
        f"INSERT INTO floor SELECT {_NAMES} FROM coming ON CONFLICT (phone) DO UPDATE "  # noqa: S608 - our own names
        f"SET {_SET} WHERE ({old}) IS DISTINCT FROM ({_NEW})"
    )
    rows = 0
    with psycopg.connect(dsn) as database:
        database.execute(_TABLE.encode())
        database.execute("CREATE TEMP TABLE coming (LIKE floor)")
        for page in pages(url):
            database.execute("TRUNCATE coming")
            with database.cursor().copy("COPY coming FROM STDIN") as out:
                for record in page:
                    out.write_row(row(record))
            database.execute(upsert.encode())
            database.commit()
            rows += len(page)
    return rows


def push(path: str, url: str) -> int:
    """Send every row that was marked, a batch a call, and note each batch."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA synchronous=FULL")
    found = database.execute("SELECT id, notes FROM changed").fetchall()
    with requests.Session() as session:
        for start in range(0, len(found), BATCH):
            records = [{"id": key, "notes": notes} for key, notes in found[start : start + BATCH]]
            body = orjson.dumps({"records": records})
            answer = session.post(f"{url}/batch", data=body, timeout=30)
            if not all(result["success"] for result in orjson.loads(answer.content)["results"]):
                raise RuntimeError(answer.text)
            done = [(record["id"],) for record in records]
            database.execute("BEGIN IMMEDIATE")
            database.executemany("DELETE FROM changed WHERE id = ?", done)
            database.execute("COMMIT")
    return len(found)


def main() -> None:
    """Do the step."""
    asked = said("first", "again", "push")
    began, cpu = time.perf_counter(), time.process_time()
    path = asked.database.removeprefix("sqlite:///")
    if asked.step == "push":
        rows = push(path, asked.url)
    elif path != asked.database:
        rows = sqlite(path, asked.url)
    else:
        rows = postgresql(asked.database.replace("postgresql+psycopg", "postgresql"), asked.url)
    tell(began, cpu, rows=rows)


if __name__ == "__main__":
    main()
