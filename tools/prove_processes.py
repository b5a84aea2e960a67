"""Every process killed in its turn while everything runs: what heals, and what is lost or doubled.

``prove_processes.py`` starts ``crm-pipeline up`` on a PostgreSQL of its own, syncs 10,000 contacts with a
simulated CRM, and then, while webhooks and edits by another program come without a pause, kills each
process with SIGKILL, ends all database sessions, and lets the database server crash. It prints how
long each took to heal and what became of the webhooks. Exit code 1 when one is lost or counts twice,
when an edit does not reach the CRM, or when a run never ends. About ten minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from random import Random, SystemRandom

from crm_pipeline.cli.output import console, table
from crm_pipeline_tests.system.upkeep import VICTIMS, Kill, play


def row(kill: Kill) -> tuple[object, ...]:
    """One row of the table."""
    others = ", ".join(
        f"{number} {status}" for status, number in sorted(kill.sent.items()) if status != "200"
    )
    sent, taken = kill.sent.total(), kill.sent["200"]
    return (kill.what, kill.healed, sent, taken, others or "-", kill.applied, kill.lost, kill.doubled)


def main() -> int:
    """Play, print, and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("victims", nargs="*", choices=[[], *VICTIMS], help="all when not given")
    parser.add_argument("--contacts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--folder", type=Path, help="an empty folder for its files, which are kept")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="crm-prove-") as temporary:
        told = play(
            arguments.folder or Path(temporary),
            arguments.contacts,
            arguments.victims or list(VICTIMS),
            Random(arguments.seed),  # noqa: S311 - a seed is wanted, not secrecy
            lambda line: print(line, flush=True),
        )
    numbers = ("healed after s", "webhooks sent", "200", "applied", "lost", "doubled")
    columns = ("killed", *numbers[:3], "other answers", *numbers[3:])
    console().print(table(columns, [row(kill) for kill in told.kills], numbers=numbers))
    print(
        f"{told.sides.records} records, {told.sides.contacts} contacts, {told.sides.lost} differ, "
        f"{told.sides.doubled} doubled; {told.unpushed} edits not in the CRM; "
        f"runs: {', '.join(f'{number} {status}' for status, number in sorted(told.runs.items()))}"
    )
    print("\n".join([f"Not so: {claim}" for claim in told.wrong] or ["Every claim held."]))
    return int(bool(told.wrong))


if __name__ == "__main__":
    sys.exit(main())
