"""Everything as `crm-pipeline up` runs it, on PostgreSQL, while one process after another is killed."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Self

import psutil
import psycopg
import requests

from crm_pipeline.cli.dagster_ui import DagsterUi
from crm_pipeline.cli.processes import usable_port, wait_until
from crm_pipeline.simulators.generic import CONTACTS_PATH, GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline_tests.databases import migrate, postgres_url
from crm_pipeline_tests.postgres import SUPERUSER, PostgresServer
from crm_pipeline_tests.system.compare import Sides, compare, contact_id
from crm_pipeline_tests.system.snare import Snare
from crm_pipeline_tests.system.stage import PROJECT, OtherProgram, Stage, crm_of

KEY, SECRET = "key-of-the-proof", "secret-of-the-proof"
HEAL_SECONDS = 300.0
"""After so long it is taken not to heal."""
_SENDERS = 4
_PACE = 0.2
"""Seconds between two webhooks of a sender, and two edits of the bot."""
_SETTLED = ("created", "updated", "unchanged")

ROLES = {
    "code server": ("dagster", "grpc"),
    "daemon": ("dagster._daemon",),
    "web server": ("dagster_webserver",),
    "API parent": ("serve", "--workers"),
    "API worker": ("serve", "--fd"),
    "API receiver": ("crm_pipeline.api.receiver",),
    "run worker": ("spawn_main",),
}
"""Words of each process's command line."""


@dataclass(slots=True)
class Site:
    """What runs."""

    up: psutil.Process
    stage: Stage
    ui: DagsterUi
    api: str
    server: PostgresServer

    @property
    def other(self) -> OtherProgram:
        """Plain SQL of another program."""
        return self.stage.other

    def processes(self, role: str) -> list[psutil.Process]:
        """Those that run now."""
        found = []
        for process in self.up.children(recursive=True):
            with suppress(psutil.Error):
                words = process.cmdline()
                said = " ".join(words)
                if all(word in said for word in ROLES[role]) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def webhook(self, name: str, phone: str, notes: str) -> int:
        """Send one; its answer's status."""
        body = {"secret": SECRET, "phone": phone, "notes": notes}
        headers = {"X-API-Key": KEY, "webhook-id": name}
        url = f"{self.api}/api/external/webhook"
        return requests.post(url, json=body, headers=headers, timeout=20).status_code

    def sql_at_last(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Plain SQL, again and again while the server is away."""
        while True:
            try:
                return self.other.sql(statement, *values)
            except psycopg.OperationalError:
                time.sleep(0.2)


@contextmanager
def site(folder: Path, contacts: int) -> Iterator[Site]:
    """Start PostgreSQL, a CRM with so many contacts and everything of ours."""
    server = PostgresServer(durable=True)
    crm = crm_of(contacts)
    snare = Snare(create_app(crm))
    try:
        with running(snare) as crm_url:
            url = _databases(server)
            stage = Stage(folder, crm, snare, OtherProgram(url), batch=100)
            stage.configure()
            ports = [usable_port(0) for _ in range(3)]
            _settle_in(folder, server, crm, crm_url)
            with _up(folder, ports) as process:
                ui = DagsterUi(f"http://127.0.0.1:{ports[0]}")
                found = Site(psutil.Process(process.pid), stage, ui, f"http://127.0.0.1:{ports[1]}", server)
                wait_until(lambda: _all_up(found), seconds=120, what="starting")
                yield found
    finally:
        server.close()


def _databases(server: PostgresServer) -> str:
    with psycopg.connect(
        host=str(server.socket_folder), user=SUPERUSER, dbname="postgres", autocommit=True
    ) as database:
        database.execute("CREATE DATABASE crm")
        database.execute("CREATE DATABASE dagster")
    url = postgres_url(server.socket_folder, "crm")
    migrate(url)
    return url


def _settle_in(folder: Path, server: PostgresServer, crm: GenericCrm, crm_url: str) -> None:
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(PROJECT / name, folder)
    shutil.copytree(PROJECT / "deploy", folder / "deploy")
    variables = {
        "DATABASE_URL": postgres_url(server.socket_folder, "crm"),
        "DAGSTER_DATABASE_URL": postgres_url(server.socket_folder, "dagster"),
        "EXTERNAL_CRM_ENABLED": "true",
        "EXTERNAL_CRM_API_URL": f"{crm_url}{CONTACTS_PATH}",
        "EXTERNAL_CRM_API_KEY": crm.options.api_key,
        "EXTERNAL_CRM_CONFIG": "connection.yaml",
        "EXTERNAL_CRM_PUSH": "auto",
        "EXTERNAL_CRM_WEBHOOK_SECRET": SECRET,
        "CRM_API_KEY": KEY,
        "RATE_LIMIT": "1000000",
    }
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))


@contextmanager
def _up(folder: Path, ports: Sequence[int]) -> Iterator[subprocess.Popen[bytes]]:
    options = [
        f"--{name}={port}" for name, port in zip(("port", "api-port", "code-port"), ports, strict=True)
    ]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "crm_pipeline.cli.main", "up", *options],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "TZ": "Asia/Jakarta"},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _all_up(found: Site) -> bool:
    roles = set(ROLES) - {"run worker"}
    if any(not found.processes(role) for role in roles) or len(found.processes("API worker")) < 2:
        return False
    try:
        return found.ui.loaded() and requests.get(f"{found.api}/healthz", timeout=5).ok
    except requests.RequestException:
        return False


@dataclass(slots=True)
class Kill:
    """One death, and what happened around it."""

    what: str
    healed: float = 0.0
    """Seconds until everything ran again, and a new webhook and a new edit had gone all the way."""
    sent: Counter[str] = field(default_factory=Counter)
    """Answers to webhooks from this death to the next, by status; ``none`` without one."""
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Acknowledged webhooks: contact and value."""
    applied: int = 0
    lost: int = 0
    doubled: int = 0


class Traffic:
    """The CRM's users edit and its webhooks come; the bot edits, too. Each value is written once, ever."""

    def __init__(self, where: Site, kills: list[Kill], random: Random) -> None:
        """Go on from the last of ``kills``."""
        self._where = where
        self._kills = kills
        self._over = threading.Event()
        records = sorted(where.stage.crm.records)
        random.shuffle(records)
        self.probe = records.pop()
        self._numbers = itertools.count(1)
        self.edits: dict[str, str] = {}
        """The bot's last value, by record."""
        ours = [records[part :: _SENDERS + 1][:500] for part in range(_SENDERS + 1)]
        work = [(self._send, ours[part]) for part in range(_SENDERS)] + [(self._edit, ours[-1])]
        self._threads = [threading.Thread(target=do, args=(part,), daemon=True) for do, part in work]

    def __enter__(self) -> Self:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """End after what is under way."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def webhook(self, record: str) -> str:
        """Let a user of the CRM edit a record, and send its webhook until it is acknowledged; its name."""
        crm, name = self._where.stage.crm, f"hook-{next(self._numbers)}"
        crm.edit(record, notes=name)
        phone = crm.records[record]["phone"]
        while True:
            kill = self._kills[-1]
            try:
                status = str(self._where.webhook(name, phone, name))
            except requests.RequestException:
                status = "none"
            kill.sent[status] += 1
            if status == "200":
                kill.names[name] = (contact_id(phone), name)
                return name
            time.sleep(0.1)

    def edit(self, record: str) -> str:
        """Let the bot edit a contact; the value."""
        value = f"bot-{next(self._numbers)}"
        contact = contact_id(self._where.stage.crm.records[record]["phone"])
        self._where.sql_at_last("UPDATE contacts SET pic = ? WHERE id = ?", value, contact)
        self.edits[record] = value
        return value

    def _send(self, records: Sequence[str]) -> None:
        for record in itertools.cycle(records):
            if self._over.wait(_PACE):
                return
            self.webhook(record)

    def _edit(self, records: Sequence[str]) -> None:
        for record in itertools.cycle(records):
            if self._over.wait(_PACE):
                return
            self.edit(record)


Victim = Callable[[Site], None]


def _killing(role: str) -> Victim:
    def kill(where: Site) -> None:
        wait_until(lambda: bool(where.processes(role)), seconds=120, what=f"a {role} to kill", every=0.02)
        where.processes(role)[0].kill()

    return kill


def _fetching(where: Site) -> None:
    """Kill the API's process that waits for a fetch."""

    def fetch() -> None:
        with suppress(requests.RequestException):
            url = f"{where.api}/api/external/fetch"
            requests.post(url, headers={"X-API-Key": KEY}, timeout=HEAL_SECONDS)

    def holder() -> list[tuple[Any, ...]]:
        """Who fetches, when its run has come to a step."""
        return where.other.sql(
            "SELECT f.holder FROM leases f JOIN leases r ON r.holder = f.holder AND r.name <> f.name"
            " WHERE f.name = 'fetch/default'"
        )

    threading.Thread(target=fetch, daemon=True).start()
    wait_until(lambda: bool(holder()), seconds=120, what="a fetch to kill", every=0.02)
    psutil.Process(int(str(holder()[0][0]).rsplit("/", 2)[1])).kill()


def _disconnecting(where: Site) -> None:
    """End every session of the database, as an administrator would."""
    sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ?"
    for name in ("dagster", "crm"):
        where.other.sql(f"{sessions} AND pid <> pg_backend_pid()", name)


def _crashing(where: Site) -> None:
    where.server.take_away()
    time.sleep(5.0)
    where.server.bring_back()


VICTIMS: dict[str, Victim] = {
    "code server": _killing("code server"),
    "daemon": _killing("daemon"),
    "web server": _killing("web server"),
    "API worker": _killing("API worker"),
    "API parent": _killing("API parent"),
    "API receiver": _killing("API receiver"),
    "run worker": _killing("run worker"),
    "API worker in a fetch": _fetching,
    "all database sessions": _disconnecting,
    "database server, 5 s": _crashing,
}


@dataclass(slots=True)
class Told:
    """What came of all."""

    first_sync: float
    """Seconds."""
    kills: list[Kill]
    sides: Sides
    unpushed: int
    """Edits of the bot that the CRM does not hold."""
    runs: Counter[str]
    """Dagster's runs, by how they ended."""

    @property
    def wrong(self) -> list[str]:
        """What must not be."""
        claims = {
            "nothing was lost": not (self.sides.lost or any(kill.lost for kill in self.kills)),
            "nothing was doubled": not (self.sides.doubled or any(kill.doubled for kill in self.kills)),
            "every edit of the bot is in the CRM": not self.unpushed,
            "every run has ended": set(self.runs) <= {"SUCCESS", "FAILURE", "CANCELED"},
            "webhooks came through all the time": all(kill.names for kill in self.kills),
        }
        return [claim for claim, held in claims.items() if not held]


def play(
    folder: Path, contacts: int, victims: Sequence[str], random: Random, say: Callable[[str], None]
) -> Told:
    """Sync, then kill one after another while webhooks and edits come, and judge."""
    with site(folder, contacts) as where:
        began = time.monotonic()
        _run(where, "sync_job")
        first_sync = time.monotonic() - began
        say(f"{contacts} contacts synced in {first_sync:.0f} s")
        kills = [Kill("(nothing)")]
        with Traffic(where, kills, random) as traffic:
            _heal(where, traffic, kills[0])
            for name in victims:
                kills.append(Kill(name))
                VICTIMS[name](where)
                _heal(where, traffic, kills[-1])
                say(f"{name}: healed after {kills[-1].healed:.1f} s")
        _quiet(where)
        _run(where, "sync_job")
        for kill in kills:
            _judge(where, kill)
        crm = where.stage.crm
        unpushed = sum(crm.records[record]["sales_rep"] != value for record, value in traffic.edits.items())
        wait_until(
            lambda: all(run.ended for run in where.ui.runs()), seconds=HEAL_SECONDS, what="the last run"
        )
        runs = Counter(run.status for run in where.ui.runs())
        return Told(first_sync, kills, compare(where.stage), unpushed, runs)


def _run(where: Site, job: str) -> None:
    run_id = where.ui.launch(job)

    def ended() -> bool:
        return next(run.ended for run in where.ui.runs() if run.id == run_id)

    wait_until(ended, seconds=HEAL_SECONDS, what=job, every=0.5)


def _heal(where: Site, traffic: Traffic, kill: Kill) -> None:
    """Wait until everything runs, and a webhook and an edit from after the death have gone all the way."""
    began = time.monotonic()
    name, value = traffic.webhook(traffic.probe), traffic.edit(traffic.probe)
    crm = where.stage.crm

    def through() -> bool:
        rows = where.sql_at_last("SELECT outcome FROM webhook_events WHERE event_id = ?", name)
        return (
            rows[0][0] in _SETTLED and crm.records[traffic.probe].get("sales_rep") == value and _all_up(where)
        )

    wait_until(through, seconds=HEAL_SECONDS, what=f"healing from {kill.what}", every=0.2)
    kill.healed = time.monotonic() - began


def _quiet(where: Site) -> None:
    """Wait until nothing is left to do."""

    def quiet() -> bool:
        left = where.other.sql(
            "SELECT (SELECT count(*) FROM webhook_events WHERE outcome IS NULL)"
            " + (SELECT count(*) FROM contacts WHERE row_version <> pushed_version)"
        )
        return left == [(0,)]

    wait_until(quiet, seconds=HEAL_SECONDS, what="the rest", every=0.5)


def _judge(where: Site, kill: Kill) -> None:
    """Count what became of the webhooks that were acknowledged after a death."""
    outcomes = dict(where.other.sql("SELECT event_id, outcome FROM webhook_events"))
    kill.applied = sum(outcomes.get(name) in _SETTLED for name in kill.names)
    kill.lost = len(kill.names) - kill.applied
    changes = where.other.sql("SELECT contact_id, new FROM contact_changes WHERE field = 'notes'")
    made = Counter((contact, str(new).strip('"')) for contact, new in changes)
    kill.doubled = sum(made[change] > 1 for change in kill.names.values())
