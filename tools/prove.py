"""The full-size proofs: what holds when processes are killed, cut off, run twice, or have nothing to do.

``prove.py`` plays all of them on SQLite and on PostgreSQL (about half an hour) and prints their
figures; with names, only those. Exit code 1 when a figure is wrong. Kill moments are drawn
from ``--seed``, which is printed. `make test` plays the same proofs in a smaller size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random, SystemRandom

from crm_pipeline.cli.output import console, table
from crm_pipeline_tests.databases import Databases, PostgresDatabases, SqliteDatabases
from crm_pipeline_tests.postgres import PostgresServer
from crm_pipeline_tests.system import proofs
from crm_pipeline_tests.system.proofs import Proof
from crm_pipeline_tests.system.stage import Stage, crm_of, on_stage

MANY = 20_000
KILLS = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """One proof, its size, and the CRM it is played with."""

    contacts: int
    prove: Callable[[Stage, Random], Proof]
    batch: int = 0
    lookup: bool = True


PLANS = {
    "pull": Plan(MANY, lambda stage, random: proofs.killed_pull(stage, KILLS, random)),
    "push": Plan(2_000, lambda stage, random: proofs.killed_push(stage, 1_000, 100, KILLS, random)),
    "push-batches": Plan(
        2_000, lambda stage, random: proofs.killed_push(stage, 1_000, 100, KILLS, random), batch=20
    ),
    "replies": Plan(500, lambda stage, _: proofs.cut_replies(stage, 100)),
    "replies-batches": Plan(500, lambda stage, _: proofs.cut_replies(stage, 100), batch=10),
    "replies-no-lookup": Plan(500, lambda stage, _: proofs.cut_replies(stage, 100), lookup=False),
    "broken": Plan(MANY, lambda stage, _: proofs.broken_records(stage, 1_000)),
    "unchanged": Plan(MANY, lambda stage, _: proofs.nothing_changed(stage), batch=100),
    "update": Plan(MANY, lambda stage, _: proofs.plain_update(stage, 100), batch=100),
    "two": Plan(50, lambda stage, random: proofs.two_at_once(stage, 200, random), batch=100),
}


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, Databases]]:
    """Both kinds of databases; the PostgreSQL server is our own."""
    server = PostgresServer()
    try:
        postgres = PostgresDatabases(server.socket_folder, "prove")
        yield {"sqlite": SqliteDatabases(folder), "postgresql": postgres}
        postgres.close()
    finally:
        server.close()


def play(name: str, seed: int, kind: Databases) -> Proof:
    """Play one proof on a fresh database."""
    plan = PLANS[name]
    with tempfile.TemporaryDirectory(prefix="crm-prove-") as folder, kind.fresh() as url:
        crm = crm_of(plan.contacts)
        with on_stage(Path(folder), url, crm, batch=plan.batch, lookup=plan.lookup) as stage:
            return plan.prove(stage, Random(f"{seed} {name}"))  # noqa: S311 - moments need a seed, not secrecy


def told(name: str, database: str, proof: Proof) -> tuple[object, ...]:
    """One row of the table."""
    figures = (proof.processes, proof.kills, proof.calls, proof.rows, proof.lost, proof.doubled)
    more = ", ".join(f"{number} {what}" for what, number in proof.more.items())
    return (name, database, proof.seconds, *figures, not proof.wrong, more)


def main() -> int:
    """Play, print, and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PLANS)}; all when none")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6), help="of kill moments")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - PLANS.keys():
        parser.error(f"there is no proof {', '.join(sorted(unknown))}")
    rows: list[tuple[object, ...]] = []
    wrong: list[str] = []
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="crm-prove-") as folder, databases(Path(folder)) as kinds:
        for name in arguments.names or PLANS:
            for database, kind in kinds.items():
                proof = play(name, arguments.seed, kind)
                rows.append(told(name, database, proof))
                wrong += [f"{name} on {database}: {each}" for each in proof.wrong]
                kills = f", killed at {'; '.join(proof.moments)}" if proof.moments else ""
                print(f"{name} on {database}: {proof.seconds:.1f} s{kills}", flush=True)
    numbers = ("seconds", "processes", "kills", "calls", "contacts", "lost", "doubled")
    console().print(table(("proof", "database", *numbers, "held", "more"), rows, numbers=numbers))
    print("\n".join(wrong or ["Every claim held."]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
