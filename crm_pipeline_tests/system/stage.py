"""The stage of a proof: a CRM on a socket, a database, real `crm-pipeline` processes, another program."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from crm_pipeline.simulators.generic import CONTACTS_PATH, CrmOptions, GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline_tests.system.offspring import PATIENCE, Done, Offspring
from crm_pipeline_tests.system.snare import Moment, Snare

PROJECT = Path(__file__).parents[2]
_ENVIRONMENT = {
    "PATH": os.defpath,
    "PYTHONPATH": str(PROJECT),
    "TZ": "Asia/Jakarta",  # not UTC: local time taken for it would show
}
CONNECTION = "connection.yaml"
PAGE = 100
"""Records in a page."""
_TICK = 0.002


class OtherProgram:
    """Another program on the same database: its own driver and plain SQL, nothing of ours."""

    def __init__(self, url: str) -> None:
        """``url`` as SQLAlchemy spells it."""
        self._url = make_url(url)

    @property
    def kind(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._url.get_backend_name()

    @property
    def path(self) -> Path:
        """The file, on SQLite."""
        return Path(str(self._url.database))

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Execute one statement in a transaction of its own; ``?`` stands for a value."""
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.path, timeout=PATIENCE)) as database, database:
                return database.execute(statement, values).fetchall()
        url = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url) as connection:
            cursor = connection.execute(statement.replace("?", "%s").encode(), values)
            return cursor.fetchall() if cursor.description else []


@dataclass(slots=True)
class Stage:
    """Everything a proof plays with."""

    folder: Path
    crm: GenericCrm
    snare: Snare
    other: OtherProgram
    batch: int = 0
    """Writes in one call; 0 for one call each."""
    lookup: bool = True
    """Whether the CRM finds records by their phone."""
    processes: int = field(default=0, init=False)
    """Started so far."""

    def configure(self, *, windows: bool = True, style: str = "cursor", in_flight: int = 4) -> None:
        """Describe the CRM.

        Args:
            windows: it can be asked for what was modified since.
            style: how it pages.
            in_flight: requests that may be under way at once.
        """
        writing: dict[str, Any] = {"lookup": {"param": "phone"}} if self.lookup else {}
        if self.batch:
            call = {"path": "/batch", "envelope": "records", "result_record": "record", "size": self.batch}
            writing |= {"batch_create": call, "batch_update": call}
        since = {"modified_since": {"param": "updated_since"}} if windows else {}
        described = {
            "listing": {"page_size": PAGE, "params": {"pagination": style}, **since},
            "pagination": {"style": style, "size_param": "limit"},
            "writing": writing,
            "limits": {"max_retry_wait": 0.5, "retries": 3, "in_flight": in_flight},
        }
        (self.folder / CONNECTION).write_text(json.dumps(described))

    def start(self, *arguments: str, **environment: str) -> Offspring:
        """Start ``crm-pipeline`` beside us, with these variables as well."""
        self.processes += 1
        return Offspring(arguments, self.folder, {**_ENVIRONMENT, **environment})

    def run(self, *arguments: str) -> Done:
        """Run ``crm-pipeline … --json`` to its end.

        Raises:
            TimeoutError: it hung.
        """
        with self.start(*arguments, "--json") as process:
            return process.finish()

    def must(self, *arguments: str) -> Done:
        """Run ``crm-pipeline`` and insist on exit code 0."""
        done = self.run(*arguments)
        assert done.code == 0, done.err
        return done

    def kill_at_request(self, moment: Moment, *arguments: str) -> None:
        """Start ``crm-pipeline`` and kill it at a moment of its talk with the CRM."""
        with self.start(*arguments) as process:
            self.snare.set(moment, process.kill)
            _killed(process)
        self.snare.clear()

    def kill_when(self, condition: Callable[[], bool], delay: float, *arguments: str) -> None:
        """Start ``crm-pipeline`` and kill it so many seconds after a condition has come true."""
        with self.start(*arguments) as process:
            while not (process.ended() or condition()):
                time.sleep(_TICK)
            time.sleep(delay)
            process.kill()
            _killed(process)

    def settle(self, most: int = 6) -> Done:
        """Sync until nothing is left to do.

        Raises:
            AssertionError: so many runs did not do.
        """
        for _ in range(most):
            writes = len(self.crm.log)
            done = self.run("sync")
            if done.code == 0 and len(self.crm.log) == writes and not done.steps["apply"]["seen"]:
                return done
        raise AssertionError(f"after {most} runs there was still something to do: {done}")


def _killed(process: Offspring) -> None:
    done = process.finish()
    assert done.code == -signal.SIGKILL, f"it ended before it could be killed: {done}"


@contextmanager
def on_stage(
    folder: Path, database_url: str, crm: GenericCrm, *, batch: int = 0, lookup: bool = True
) -> Iterator[Stage]:
    """Serve a CRM and point ``crm-pipeline`` to it and to a migrated database."""
    snare = Snare(create_app(crm))
    with running(snare) as url:
        variables = {
            "DATABASE_URL": database_url,
            "EXTERNAL_CRM_ENABLED": "true",
            "EXTERNAL_CRM_API_URL": f"{url}{CONTACTS_PATH}",
            "EXTERNAL_CRM_API_KEY": crm.options.api_key,
            "EXTERNAL_CRM_CONFIG": str(folder / CONNECTION),
        }
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        stage = Stage(folder, crm, snare, OtherProgram(database_url), batch, lookup)
        stage.configure()
        yield stage


def crm_of(contacts: int, **options: Any) -> GenericCrm:
    """A CRM that holds so many invented contacts."""
    return GenericCrm.seeded(contacts, options=CrmOptions(page_size=PAGE, **options))


def sent(crm: GenericCrm, start: int = 0) -> Iterator[Mapping[str, Any]]:
    """Every record in the CRM's log of writes, from a place on, as it was sent."""
    for write in list(crm.log)[start:]:
        items: Sequence[Mapping[str, Any]] = (
            write.payload["records"] if write.kind == "batch" else [write.payload]
        )
        yield from items
