"""The full-size proof of an outage: the CRM answers nothing but 503 for three days, at true minutes.

Every minute of three simulated days and some hours the schedule and all sensors tick, and every run they
ask for runs, with a CRM on a socket and a chat that listens (twenty minutes). Exit code 1 when a
figure is wrong. `make test` plays three days with longer intervals.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from crm_pipeline.cli.output import console, table
from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.simulators.generic import CONTACTS_PATH, CrmOptions, GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline_tests.orchestration.outage import MINUTE, Outage, listening
from crm_pipeline_tests.orchestration.world import CONNECTION, World

CONTACTS = 1000
EDITS = 50
AWAY = timedelta(days=3)
INTERVAL = 30


def play(folder: Path) -> bool:
    """An ordinary hour, three days away, some hours after; whether all figures are right."""
    crm = GenericCrm.seeded(CONTACTS, days=20, options=CrmOptions(api_key="sim-key"))
    database_url = f"sqlite:///{folder}/crm_pipeline.db"
    (folder / "crm.yaml").write_text(f"{CONNECTION}limits: {{retries: 0}}\n")
    shutil.copy("dagster.yaml", folder / "dagster.yaml")
    with (
        dg.DagsterInstance.from_config(str(folder)) as instance,
        running(create_app(crm)) as base,
        listening() as (chat, lines),
    ):
        os.environ |= {
            "EXTERNAL_CRM_ENABLED": "true",
            "EXTERNAL_CRM_API_URL": base + CONTACTS_PATH,
            "EXTERNAL_CRM_CONFIG": str(folder / "crm.yaml"),
            "EXTERNAL_CRM_SYNC_MODE": "polling",
            "EXTERNAL_CRM_SYNC_INTERVAL": str(INTERVAL),
            "EXTERNAL_CRM_PUSH": "auto",
            "ALERT_SLACK_URL": chat,
        }
        resources = {"external_crm": ExternalCrm(api_key="sim-key"), "database": Database(url=database_url)}
        world = World(crm, instance, database_url, resources)
        return _told(Outage(world, datetime.now(UTC)), lines)


def _told(outage: Outage, lines: list[str]) -> bool:
    world, crm, rows = outage.world, outage.world.crm, []

    def stage(name: str, span: timedelta) -> None:
        before, asked, heard, began = outage.runs.copy(), crm.requests, len(lines), time.monotonic()
        outage.go_on(span, MINUTE)
        made = outage.runs - before
        done = sum(number for (_, good), number in made.items() if good)
        figures = (done, made.total() - done, crm.requests - asked, len(lines) - heard)
        rows.append((name, int(span / MINUTE), *figures, f"{time.monotonic() - began:.0f}"))

    stage("an ordinary hour", timedelta(hours=1))
    world.sql("UPDATE contacts SET instansi = 'ours' WHERE id IN (SELECT min(id) FROM contacts)")
    outage.away(away=True)
    stage("the CRM is away", AWAY)
    for key in sorted(crm.records)[:EDITS]:
        crm.edit(key, notes="theirs")
    outage.away(away=False)
    stage("the next poll", timedelta(minutes=INTERVAL))
    caught_up = world.rows("SELECT count(*) FROM contacts WHERE notes = 'theirs'")[0][0]
    stage("the hours after", timedelta(hours=3))
    columns = ("stage", "minutes", "runs done", "runs failed", "calls", "lines told", "seconds")
    console().print(table(columns, rows, numbers=columns[1:]))
    console().print(f"{caught_up} of {EDITS} edits came with the first run after; told:", *lines, sep="\n  ")
    pushed = sum(record.get("company") == "ours" for record in crm.records.values())
    once = [line for line in lines if "still wrong, now an error" not in line]
    begins = [line for line in once if not line.startswith("RECOVERED")]
    return caught_up == EDITS and pushed == 1 and len(once) == 2 * len(begins) == 2 * len(set(begins))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name:
        sys.exit(0 if play(Path(name)) else 1)
