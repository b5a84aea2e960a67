"""dlt as fast as it was found to go: its RESTClient, tables of arrow, merge by primary key.

Runs in the environment of the peers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dlt
import pyarrow as pa
from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator
from report import said, tell

TEXTS = ("company", "event_name", "notes", "phone_1", "sales_rep", "task_status", "instagram", "status")
NUMBERS = ("ticket_price", "capacity")
TIMES = ("meeting_date", "sale_date", "event_date", "updated_at")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("phone", "id", "name", *TEXTS)),
        *((name, pa.int64()) for name in NUMBERS),
        *((name, pa.timestamp("us", tz="UTC")) for name in TIMES),
    ]
)


def row(record: dict[str, Any]) -> dict[str, Any]:
    """A record's columns, numbers as numbers and times in UTC."""
    take = record.get
    return {
        **{name: take(name) for name in ("phone", "id", "name", *TEXTS)},
        **{name: int(value) if (value := take(name)) is not None else None for name in NUMBERS},
        **{
            name: datetime.fromisoformat(value).astimezone(UTC) if (value := take(name)) else None
            for name in TIMES
        },
    }


def main() -> None:
    """Do the step; for dlt both are the same."""
    asked = said("first", "again")
    base, _, path = asked.url.rpartition("/")
    paginator = JSONResponseCursorPaginator(cursor_path="next_cursor", cursor_param="cursor")
    client = RESTClient(base_url=base, paginator=paginator, data_selector="records")
    rows = 0

    def contacts() -> Iterator[pa.Table]:
        nonlocal rows
        for page in client.paginate(path, params={"limit": 1000}):
            rows += len(page)
            yield pa.Table.from_pylist([row(record) for record in page], schema=SCHEMA)

    if asked.database.startswith("sqlite"):
        destination: Any = dlt.destinations.sqlalchemy(asked.database, create_primary_keys=True)
    else:
        url = urlsplit(asked.database)
        socket = {"host": "localhost", "query": {"host": parse_qs(url.query)["host"][0]}, "password": "none"}
        names = {"username": url.username, "database": url.path.strip("/")}
        destination = dlt.destinations.postgres({**names, **socket})
    pipeline = dlt.pipeline(
        "bench", destination=destination, dataset_name="bench", pipelines_dir=f"{asked.folder}/dlt"
    )
    began, cpu = time.perf_counter(), time.process_time()
    pipeline.run(dlt.resource(contacts(), name="contacts", primary_key="phone", write_disposition="merge"))
    tell(began, cpu, rows=rows)


if __name__ == "__main__":
    main()
