"""What it takes to begin: help, the API, Dagster's definitions, and a run with nothing to do.

python benchmarks/start.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rounds import HERE, crm, free_port, process, until_up

from crm_pipeline.cli.dagster_ui import DagsterUi, Run, dagster_dev
from crm_pipeline.cli.output import console, table
from crm_pipeline.cli.processes import wait_until
from crm_pipeline.store.engine import open_database
from crm_pipeline.store.migrate import upgrade

_RUN = """
import time
from dagster import DagsterInstance
from crm_pipeline.definitions import defs
job = defs.resolve_job_def("sync_job")
with DagsterInstance.ephemeral() as instance:
    job.execute_in_process(instance=instance, raise_on_error=True)
    began = time.perf_counter()
    job.execute_in_process(instance=instance, raise_on_error=True)
    print(time.perf_counter() - began)
"""
_STEP = """
import time
from crm_pipeline.service import service_from_settings
from crm_pipeline.settings import load_settings
with service_from_settings(load_settings()) as service:
    service.sync()
    began = time.perf_counter()
    service.sync()
    print(time.perf_counter() - began)
"""


def launched(folder: Path, variables: dict[str, str], rounds: int) -> list[float]:
    """Seconds from the request of a run to its end, with daemon, code server and web server at work.

    Raises:
        RuntimeError: a run fails; the text is why.
    """
    port, home = free_port(), folder / "dagster"
    with dagster_dev(HERE.parent, home, port, folder=folder, environment=variables, log=folder / "log"):
        ui = DagsterUi(f"http://127.0.0.1:{port}")
        wait_until(ui.loaded, seconds=120, what="loading our code")
        took = [_launched(ui) for _ in range(rounds + 1)]
    return took[1:]  # the first one finds Dagster's storage new


def _launched(ui: DagsterUi) -> float:
    began = time.perf_counter()
    asked = ui.launch("sync_job")

    def run() -> Run:
        return next(each for each in ui.runs() if each.id == asked)

    wait_until(lambda: run().ended, seconds=300, what="a run with nothing to do", every=0.02)
    seconds = time.perf_counter() - began
    if run().status != "SUCCESS":
        raise RuntimeError(ui.failure(asked))
    return seconds


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="crm-bench-") as name, crm(Path(name), 1000) as url:
        folder = Path(name)
        database = f"sqlite:///{folder}/crm.db"
        engine = open_database(database)
        upgrade(engine)
        engine.dispose()
        variables = {
            "PATH": os.defpath,
            "PYTHONPATH": str(HERE.parent),
            "DATABASE_URL": database,
            "EXTERNAL_CRM_ENABLED": "true",
            "EXTERNAL_CRM_API_URL": url,
            "EXTERNAL_CRM_API_KEY": "key-of-the-crm",
            "EXTERNAL_CRM_WEBHOOK_SECRET": "secret-of-the-benchmark",
            "CRM_API_KEY": "key-of-the-benchmark",
        }

        def ran(*command: str) -> str:
            done = subprocess.run(
                [sys.executable, *command],
                env=variables,
                cwd=folder,
                capture_output=True,
                text=True,
                check=True,
            )
            return done.stdout

        def timed(*command: str) -> float:
            began = time.perf_counter()
            ran(*command)
            return time.perf_counter() - began

        def api() -> float:
            port, began = free_port(), time.perf_counter()
            serve = ("-m", "crm_pipeline.cli.main", "serve", "--port", str(port))
            with process(*serve, log=folder / "api.log", **variables):
                until_up(port)
                return time.perf_counter() - began

        measured: dict[str, Callable[[], float]] = {
            "python -c pass": lambda: timed("-c", "pass"),
            "crm-pipeline --help": lambda: timed("-m", "crm_pipeline.cli.main", "--help"),
            "crm-pipeline serve, until it answers": api,
            "import dagster": lambda: timed("-c", "import dagster"),
            "import crm_pipeline.definitions": lambda: timed("-c", "import crm_pipeline.definitions"),
            "sync with nothing to do, the engine alone": lambda: float(ran("-c", _STEP)),
            "the same as a Dagster run in this process": lambda: float(ran("-c", _RUN).splitlines()[-1]),
        }
        times: dict[str, list[float]] = {what: [] for what in measured}
        for _ in range(rounds):
            for what, measure in measured.items():
                times[what].append(measure())
        times["the same as a run that Dagster launches"] = launched(folder, variables, rounds)
    rows = [
        (what, f"{statistics.median(each):.2f}", f"{min(each):.2f}-{max(each):.2f}")
        for what, each in times.items()
    ]
    console().print(table(("what", "seconds", "from-to"), rows, numbers=("seconds", "from-to")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
