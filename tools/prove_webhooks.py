"""Webhooks by the ten thousand while the API is killed and the database taken away.

``prove_webhooks.py`` sends 50,000 at 64 connections, on SQLite and on PostgreSQL, kills the API
with SIGKILL five times, takes the database away twice (a locked file, a crashed server), and
prints what became of all. Exit code 1 when a webhook that was acknowledged is lost or counts twice.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crm_pipeline.cli.output import console, table
from crm_pipeline_tests.databases import SqliteDatabases, migrate, postgres_url
from crm_pipeline_tests.postgres import PostgresServer
from crm_pipeline_tests.system.storm import Away, Storm, crashed, locked, storm

SENDERS = 64
KILLS = 5
AWAY_SECONDS = 6.0
"""Longer than an answer waits for the database."""


@contextmanager
def sqlite(folder: Path) -> Iterator[tuple[str, Away]]:
    """A file, and a lock that nobody gets past."""
    with SqliteDatabases(folder).fresh() as url:
        yield url, locked(Path(url.removeprefix("sqlite:///")), AWAY_SECONDS)


@contextmanager
def postgresql(_folder: Path) -> Iterator[tuple[str, Away]]:
    """A server of its own that may die."""
    server = PostgresServer(durable=True)
    try:
        url = postgres_url(server.socket_folder, "postgres")
        migrate(url)
        yield url, crashed(server, AWAY_SECONDS)
    finally:
        server.close()


DATABASES = {"sqlite": sqlite, "postgresql": postgresql}


def row(database: str, told: Storm) -> tuple[object, ...]:
    """One row of the table."""
    others = ", ".join(f"{number} {what}" for what, number in sorted(told.others.items()))
    rate = round(told.webhooks / told.seconds)
    waits = (round(told.wait(0.5), 1), round(told.wait(0.99), 1))
    return (database, told.webhooks, told.seconds, rate, *waits, others, not told.wrong)


def main() -> int:
    """Play, print, and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--webhooks", type=int, default=50_000, help="an even number")
    parser.add_argument("--database", choices=DATABASES, action="append", help="both when not given")
    arguments = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    wrong: list[str] = []
    for name in arguments.database or DATABASES:
        with (
            tempfile.TemporaryDirectory(prefix="crm-prove-") as folder,
            DATABASES[name](Path(folder)) as (url, away),
        ):
            told = storm(
                Path(folder),
                url,
                webhooks=arguments.webhooks,
                senders=SENDERS,
                kills=KILLS,
                aways=[away, away],
            )
        print(f"{name}: {'; '.join(told.moments)}", flush=True)
        rows.append(row(name, told))
        wrong += [f"{name}: not so: {claim}" for claim in told.wrong]
    numbers = ("webhooks", "seconds", "per second", "p50 ms", "p99 ms")
    console().print(table(("database", *numbers, "sent again after", "held"), rows, numbers=numbers))
    print("\n".join(wrong or ["Every claim held."]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
