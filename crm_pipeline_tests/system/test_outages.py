"""What happens while the disk is full, the database or the CRM is away, or a worker stands still."""

from __future__ import annotations

import resource
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import sqlalchemy as sa
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import OperationalError

from crm_pipeline import instants
from crm_pipeline.cli.processes import wait_until
from crm_pipeline.simulators.faults import Faults
from crm_pipeline.store import leases
from crm_pipeline.store.engine import open_database, reading, writing
from crm_pipeline.store.keeping import give_back
from crm_pipeline_tests.api.served import KEY, SECRET, SETTINGS, WEBHOOK, Served, serving
from crm_pipeline_tests.api.test_serve import served
from crm_pipeline_tests.databases import Databases, PostgresDatabases, SqliteDatabases
from crm_pipeline_tests.system.compare import Edits, compare
from crm_pipeline_tests.system.snare import Moment
from crm_pipeline_tests.system.stage import PAGE, Stage, crm_of, on_stage

PHONES = [f"62812340000{number:02}" for number in range(60)]
FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON webhook_events EXECUTE FUNCTION full_disk();
"""


@contextmanager
def limited(parent: int, file_bytes: int) -> Iterator[None]:
    """Let no file of a process and its children grow past a size: writing ends as on a full disk."""
    pids = [parent, *(child.pid for child in psutil.Process(parent).children(recursive=True))]
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


def send(url: str, phone: str) -> requests.Response:
    """Send a webhook."""
    body = {"phone": phone, "name": "x" * 2000, "secret": SECRET}
    return requests.post(f"{url}{WEBHOOK}", json=body, headers={"X-API-Key": KEY}, timeout=30)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux's")
def test_a_full_disk_refuses_and_corrupts_nothing_on_sqlite(tmp_path: Path) -> None:
    """503, never 200: what was acknowledged is there; with room again it goes on, without a restart."""
    database = tmp_path / "var" / "crm_pipeline.db"
    with served() as (process, url):
        taken = [phone for phone in PHONES[:20] if send(url, phone).status_code == 200]
        with limited(process.pid, database.with_name("crm_pipeline.db-wal").stat().st_size):
            answers = [(phone, send(url, phone)) for phone in PHONES[20:40]]
        taken += [phone for phone, answer in answers if answer.status_code == 200]
        refused = [answer for _, answer in answers if answer.status_code != 200]
        taken += [phone for phone in PHONES[40:] if send(url, phone).status_code == 200]
    assert refused
    assert {answer.status_code for answer in refused} == {503}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert taken[-20:] == PHONES[40:]
    with closing(sqlite3.connect(database)) as opened:
        landed = {
            row[0].removesuffix("@c.us") for row in opened.execute("SELECT contact_id FROM webhook_events")
        }
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert landed == set(taken)


def test_a_full_disk_refuses_on_postgresql(postgresql_databases: PostgresDatabases) -> None:
    """The server's own error for it: 503 and not 500; then it goes on."""
    with postgresql_databases.fresh() as url, serving(**SETTINGS, database_url=url) as api:
        api.sql(FULL)
        refused = api.post({"phone": PHONES[0]})
        assert (refused.status_code, refused.json()["detail"]) == (503, "The database cannot be used now.")
        api.sql("DROP TRIGGER full_disk ON webhook_events")
        assert api.post({"phone": PHONES[0]}).status_code == 200
        assert api.rows()[0] == 1


@pytest.fixture
def on_a_file(sqlite_databases: SqliteDatabases) -> Iterator[tuple[Served, Path]]:
    """The API on an SQLite file."""
    with sqlite_databases.fresh() as url, serving(**SETTINGS, database_url=url) as api:
        assert api.post({"phone": PHONES[0]}).status_code == 200
        yield api, Path(str(make_url(url).database))


def test_a_removed_file_is_noticed(on_a_file: tuple[Served, Path]) -> None:
    """Nothing is acknowledged into a file that nobody can open any more; none is made in its place."""
    api, path = on_a_file
    aside = path.with_name("aside.db")
    path.rename(aside)
    assert api.post({"phone": PHONES[1]}).status_code == 503
    assert api.ask("GET", "/readyz").status_code == 503
    assert not path.exists()
    aside.rename(path)
    assert api.post({"phone": PHONES[1]}).status_code == 200
    assert api.rows()[0] == 2


def test_a_replaced_file_is_used(on_a_file: tuple[Served, Path]) -> None:
    """A backup put in its place is what the next webhook is stored in."""
    api, path = on_a_file
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as database:
        database.execute("VACUUM INTO ?", (str(backup),))
    assert api.post({"phone": PHONES[1]}).status_code == 200
    for beside in ("-wal", "-shm"):
        path.with_name(f"{path.name}{beside}").unlink(missing_ok=True)
    shutil.move(backup, path)
    assert api.post({"phone": PHONES[2]}).status_code == 200
    with closing(sqlite3.connect(path)) as database:
        found = [row[0] for row in database.execute("SELECT contact_id FROM webhook_events ORDER BY id")]
    assert found == [f"{phone}@c.us" for phone in (PHONES[0], PHONES[2])]


@pytest.fixture
def stage(databases: Databases, tmp_path: Path) -> Iterator[Stage]:
    """Three pages of a CRM, and a database."""
    with databases.fresh() as url, on_stage(tmp_path, url, crm_of(3 * PAGE), batch=100) as stage:
        yield stage


def test_a_worker_that_stands_still_writes_nothing_later(stage: Stage) -> None:
    """Stopped in the middle, outlived by its lease, replaced, and woken: it ends, and changes nothing."""
    other = stage.other
    with stage.start("sync") as stopped:
        stage.snare.set(Moment(2, "asked"), lambda: stopped.send_signal(signal.SIGSTOP))
        try:
            wait_until(lambda: _stands_still(stopped.pid), seconds=60, what="the second page")
            stage.snare.clear()
            other.sql("UPDATE leases SET expires_at = '2020-01-01T00:00:00.000000Z' WHERE name = 'default'")
            stage.must("sync")
            before = (other.sql("SELECT * FROM contacts ORDER BY id"), len(stage.crm.log))
            stopped.send_signal(signal.SIGCONT)
            done = stopped.finish()
        finally:
            stopped.kill()
    assert done.code == 1
    assert "taken over by another worker" in done.err
    assert (other.sql("SELECT * FROM contacts ORDER BY id"), len(stage.crm.log)) == before
    sides = compare(stage)
    assert (sides.contacts, sides.lost, sides.doubled) == (3 * PAGE, 0, 0)


def _stands_still(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def test_a_process_does_not_outwait_itself(engine: Engine) -> None:
    """The database goes away while a lease is held, and comes back: the same process goes on at once."""
    name, first, second = "default", leases.new_holder(), leases.new_holder()
    with writing(engine) as tx:
        assert leases.take(tx, name, first, instants.now())
        assert not leases.take(tx, name, second, instants.now())

    def away(_connection: object) -> None:
        raise OperationalError("DELETE", {}, Exception("the server closed the connection"))

    sa.event.listen(engine, "begin", away, insert=True)
    with pytest.raises(OperationalError):
        give_back(engine, name, first)
    sa.event.remove(engine, "begin", away)
    with writing(engine) as tx:
        assert leases.take(tx, name, second, instants.now())


def test_after_days_without_the_crm_one_run_catches_up(stage: Stage) -> None:
    """Each try fails at once and costs few calls; the first that gets through does everything, once."""
    stage.must("sync")
    edits = Edits(stage)
    stage.crm.faults = Faults(server_error=1)
    records = sorted(stage.crm.records)
    for day in range(3):
        edits.there("notes", records[day])
        edits.here("pic", [stage.crm.records[records[100 + day]]["phone"]])
        asked = stage.crm.requests
        assert stage.run("sync").code == 1
        assert stage.crm.requests - asked < 10
    stage.crm.faults = Faults()
    asked = stage.crm.requests
    done = stage.must("sync")
    assert (done.steps["apply"]["updated"], done.steps["push"]["updated"]) == (3, 3)
    assert stage.crm.requests - asked < 10
    assert edits.lost() == []
    assert compare(stage).lost == 0


def test_a_server_that_goes_without_a_word_is_given_up(postgresql_databases: PostgresDatabases) -> None:
    """The system would wait for hours; who knows better says so in the URL."""
    with postgresql_databases.fresh() as url:
        for given, seconds in (("", "10"), ("&connect_timeout=3", "3")):
            engine = open_database(url + given)
            with reading(engine) as tx:
                driver: Any = tx.connection.driver_connection
                said = driver.info.get_parameters()
            engine.dispose()
            assert said["connect_timeout"] == seconds
            assert (said["tcp_user_timeout"], said["keepalives_idle"]) == ("30000", "30")
