"""How long a webhook waits: from landed to applied, with Dagster's sensor and with WEBHOOK_APPLY=now.

Runs the processes of ``crm-pipeline dev`` on a database of its own, sends webhooks one at a time
at irregular moments, and prints median, 95th percentile and the longest. For ``now``, the wait is
that for the answer, which comes when the webhook is applied.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from crm_pipeline.cli.dagster_ui import environment_without
from crm_pipeline.cli.http_api import HttpApi
from crm_pipeline.cli.output import console, table
from crm_pipeline.cli.pipeline import Ports, pipeline
from crm_pipeline.cli.processes import wait_until
from crm_pipeline.settings import Settings
from crm_pipeline.store.engine import open_database
from crm_pipeline.store.migrate import upgrade
from crm_pipeline_tests.system.stage import OtherProgram

KEY, SECRET = "key-of-the-benchmark", "secret-of-the-benchmark"
PATIENCE = 120.0
_SETTINGS = {
    "EXTERNAL_CRM_ENABLED": "true",
    "EXTERNAL_CRM_API_URL": "http://127.0.0.1:9/contacts",
    "EXTERNAL_CRM_API_KEY": "key-of-the-crm",
    "EXTERNAL_CRM_WEBHOOK_SECRET": SECRET,
    "CRM_API_KEY": KEY,
    "RATE_LIMIT": "1000000",
}


def waits(folder: Path, apply: str, webhooks: int, random: Random) -> list[float]:
    """Milliseconds each webhook waited, with ``WEBHOOK_APPLY`` as given."""
    url = f"sqlite:///{folder}/contacts.db"
    engine = open_database(url)
    upgrade(engine)
    engine.dispose()
    environment = environment_without([name.upper() for name in Settings.model_fields])
    environment |= {**_SETTINGS, "DATABASE_URL": url, "WEBHOOK_APPLY": apply}
    other = OtherProgram(url)
    with (
        (folder / "lock").open("w") as lock,
        pipeline(
            Path.cwd(),
            folder / "dagster",
            Ports(3000, 8080),
            folder=folder,
            environment=environment,
            lock=lock,
            logs=folder,
        ) as running,
    ):
        api = HttpApi(running.api_url, KEY)
        _until(api.up)
        _send(api, 0)  # the first waits for Dagster to start
        _until(lambda: other.sql("SELECT count(*) FROM contacts") == [(1,)])
        answers = []
        for number in range(1, webhooks + 1):
            # They come at any moment between two looks of the sensor.
            time.sleep(random.uniform(0.1, 2.0) if apply == "sensor" else 0.05)
            answers.append(_send(api, number))
        _until(lambda: other.sql("SELECT count(*) FROM contacts") == [(webhooks + 1,)])
    if apply == "now":
        return answers
    rows = other.sql(
        "SELECT (julianday(applied_at) - julianday(received_at)) * 86400000 FROM webhook_events "
        "ORDER BY id LIMIT -1 OFFSET 1"
    )
    return [wait for (wait,) in rows]


def _send(api: HttpApi, number: int) -> float:
    began = time.perf_counter()
    answer = api.webhook({"secret": SECRET, "phone": f"6281{number:08}", "name": "Benchmark"})
    if answer.status != 200:  # noqa: PLR2004 - the only answer that counts
        raise RuntimeError(str(answer.document))
    return (time.perf_counter() - began) * 1000


def _until(condition: Callable[[], bool]) -> None:
    wait_until(condition, seconds=PATIENCE, what="the pipeline")


def row(what: str, found: Sequence[float]) -> tuple[object, ...]:
    """One row of the table."""
    ordered = sorted(found)
    chosen = (ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)], ordered[-1])
    return (what, len(found), *(round(each, 1) for each in chosen))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sensor", type=int, default=60, help="webhooks for the sensor")
    parser.add_argument("--now", type=int, default=300, help="webhooks for WEBHOOK_APPLY=now")
    arguments = parser.parse_args()
    rows = []
    for apply, webhooks in (("sensor", arguments.sensor), ("now", arguments.now)):
        with tempfile.TemporaryDirectory(prefix="crm-bench-") as folder:
            rows.append(row(apply, waits(Path(folder), apply, webhooks, Random(1))))  # noqa: S311 - moments
    numbers = ("webhooks", "median ms", "p95 ms", "longest ms")
    console().print(table(("applied by", *numbers), rows, numbers=numbers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
