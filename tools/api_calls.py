"""Print what pulls, pushes and troubled runs cost in calls, for each vendor's simulated account.

``fewest`` is what the vendor's own page and batch sizes allow. At the end both sides must be equal.

    python tools/api_calls.py [--contacts 25000] [hubspot salesforce zoho]
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from crm_pipeline.connectors.base import Window
from crm_pipeline.service import ExternalCrmService
from crm_pipeline.settings import load_settings
from crm_pipeline.simulators.faults import parse_faults
from crm_pipeline.simulators.serve import running
from crm_pipeline.simulators.vendor import VendorCrm, VendorOptions
from crm_pipeline.simulators.vendors import SIMULATIONS
from crm_pipeline.store.engine import reading, writing
from crm_pipeline.store.tables import contacts, links, rejects
from crm_pipeline.sync.reports import Report

PUSHED, EDITED, DELETED = 1_000, 600, 8
MANY = 5_000
"""Pushed at once where the vendor has jobs for so many."""
JOB_CALLS = 6
"""Of a job: open, upload, close, one look, and the lists of what was written and what was not."""
WIDE = 10_000_000
TOO_LONG = 40_000
"""Characters of notes that none of the vendors takes."""


@dataclass(frozen=True)
class Sizes:
    """What one call carries at the most."""

    full: int
    since: int
    deleted_apart: bool
    """Whether deleted records cost a call of their own."""
    writes: int
    grant: str


SIZES = {
    "hubspot": Sizes(100, 200, deleted_apart=True, writes=100, grant="refresh_token"),
    "salesforce": Sizes(2000, 2000, deleted_apart=False, writes=200, grant="client_credentials"),
    "zoho": Sizes(200, 200, deleted_apart=True, writes=100, grant="refresh_token"),
}
WRITES = frozenset(
    [
        "batch_create",
        "batch_update",
        "batch_upsert",
        "collection_create",
        "collection_update",
        "collection_upsert",
        "create",
        "update",
        "upsert",
        "job_open",
        "job_upload",
        "job_close",
        "job_look",
        "job_results",
    ]
)
FILE = """
auth:
  kind: oauth2
  oauth:
    grant: {grant}
    client_id: sim-client
    client_secret: sim-secret
    refresh_token: sim-refresh
budget: {{calls: 1000000}}
listing: {{overlap_seconds: 0}}
"""


class Trial:
    """One vendor: an account, a database, and the table of what was called."""

    def __init__(self, kind: str, count: int, folder: Path) -> None:
        self.kind, self.count, self.sizes, self.folder = kind, count, SIZES[kind], folder
        simulation = SIMULATIONS[kind]
        options = VendorOptions(burst=WIDE, searches=WIDE, daily=WIDE, job_seconds=0.5)
        self.crm = VendorCrm.seeded(simulation.vendor, count, options=options)
        self.app = simulation.app(self.crm)
        self.right = True

    def run(self) -> bool:
        """Go through all phases; whether all is as it must be."""
        (self.folder / "connection.yaml").write_text(FILE.format(grant=self.sizes.grant))
        with running(self.app) as url:
            settings = load_settings(
                external_crm_enabled=True,
                external_crm_type=self.kind,
                external_crm_api_url=url,
                external_crm_config=self.folder / "connection.yaml",
                external_crm_push="auto",
                database_url=f"sqlite:///{self.folder}/crm.db",
            )
            service = ExternalCrmService(settings=settings)
            self._phases(service)
            service.close()
        return self.right

    def _phases(self, service: ExternalCrmService) -> None:
        sizes = self.sizes
        self._show("first pull", lambda: service.sync(push=False), math.ceil(self.count / sizes.full))
        time.sleep(1.1)  # stamps have whole seconds
        self._edit_there()
        fewest = math.ceil((EDITED + 2) / sizes.since) + sizes.deleted_apart
        self._show("poll: edits, deletes, merge", lambda: service.sync(push=False), fewest)
        self._edit_here(service)
        self._show(
            "push of 1,000, 1 % invalid",
            lambda: [service.push()],
            math.ceil(PUSHED / sizes.writes),
            pushes=True,
        )
        self._edit_there()
        self.crm.faults = parse_faults(["rate_limit=3"])
        self._show("poll in a 429 storm", lambda: service.sync(push=False))
        self.crm.faults = parse_faults([])
        self.crm.tokens.end_all()
        self._edit_here(service, offset=PUSHED)
        self._show("push, token ended", lambda: [service.push()])
        if service.connector.bulk is not None:
            many = min(MANY, self.count - 200)
            self._edit_here(service, count=many, word="many")
            self._show(f"push of {many:,} as a job", lambda: [service.push()], JOB_CALLS, pushes=True)
        time.sleep(1.1)
        self._show("quiet", service.sync)
        self._compare(service)

    def _show(
        self, name: str, act: Callable[[], list[Report]], fewest: int | None = None, *, pushes: bool = False
    ) -> None:
        """Run a phase and print its calls; of a push, the writes are held against the fewest."""
        before, started = self.crm.calls.copy(), time.monotonic()
        report = act()[-1]
        made = self.crm.calls - before
        writes = sum(calls for kind, calls in made.items() if kind in WRITES)
        reads = made.total() - writes
        ratio = f"{(writes if pushes else reads) / fewest:.2f}" if fewest else "-"
        cells = f"{reads:>6}{writes:>8}{fewest or '-':>8}{ratio:>7}{time.monotonic() - started:>7.1f} s"
        told = {word: number for word, number in report.counts.as_dict().items() if number}
        print(f"{self.kind:<11}{name:<30}{cells}  {told}")

    def _edit_there(self) -> None:
        """People edit, delete and merge."""
        rows = self.crm.shelf.all().cut(0, len(self.crm.shelf))
        name = self.crm.vendor.names["company"]
        for number, row in enumerate(rows[-EDITED:]):
            self.crm.edit(row.id, **{name: f"Changed {number} {time.time()}"})
        for row in rows[:DELETED]:
            self.crm.delete(row.id)
        self.crm.merge(rows[20].id, rows[21].id)

    def _edit_here(
        self, service: ExternalCrmService, offset: int = 0, count: int = PUSHED, word: str = "noted"
    ) -> None:
        """Another program edits contacts, one in a hundred to what the CRM will not take."""
        with writing(service.engine) as tx:
            linked = sa.select(links.c.contact_id).where(links.c.external_deleted_at.is_(None))
            chosen = sa.select(contacts.c.id).where(contacts.c.id.in_(linked)).order_by(contacts.c.id)
            ids = list(tx.execute(chosen.offset(offset + 100).limit(count)).scalars())
            for number, contact_id in enumerate(ids):
                notes = "x" * TOO_LONG if number % 100 == 0 else f"{word} {number}"
                tx.execute(contacts.update().where(contacts.c.id == contact_id).values(notes=notes))

    def _compare(self, service: ExternalCrmService) -> None:
        """Hold every linked contact against its record, but those whose push the CRM refused."""
        with reading(service.engine) as tx:
            ours = {row.id: row._asdict() for row in tx.execute(sa.select(contacts))}
            query = sa.select(links.c.external_id, links.c.contact_id)
            pairs = list(tx.execute(query.where(links.c.external_deleted_at.is_(None))))
            refused = set(tx.execute(sa.select(rejects.c.key).where(rejects.c.source == "push")).scalars())
        pages = service.connector.pages(Window())
        records = {record.external_id: record.payload for page in pages for record in page.records}
        differ = 0
        for external_id, contact_id in pairs:
            if contact_id not in refused:
                theirs = service.mapping.to_contact(records.get(external_id, {}))
                own, _ = service.mapping.canonical(ours[contact_id])
                differ += not theirs or any(own[name] != value for name, value in theirs.items())
        told = f"{len(pairs)} linked, {len(records)} in the CRM, {len(refused)} refused, {differ} differ"
        print(f"{self.kind:<11}{'both sides':<30}{told}")
        self.right = not differ and len(pairs) == len(records)


def main() -> int:
    """Try the vendors asked for; 0 when both sides of each are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vendors", nargs="*", default=list(SIZES))
    parser.add_argument("--contacts", type=int, default=25_000)
    asked = parser.parse_args()
    print(f"{'vendor':<11}{'phase':<30}{'reads':>6}{'writes':>8}{'fewest':>8}{'ratio':>7}{'time':>9}")
    right = []
    for kind in asked.vendors:
        with tempfile.TemporaryDirectory() as folder:
            right.append(Trial(kind, asked.contacts, Path(folder)).run())
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
