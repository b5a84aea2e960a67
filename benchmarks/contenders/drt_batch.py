"""drt's REST destination in its batch mode: any 2xx counts as success for the whole batch.

Runs in the environment of the peers.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from drt.config.credentials import SQLiteProfile
from drt.config.models import SyncConfig
from drt.destinations.rest_api import RestApiDestination
from drt.engine.sync import run_sync
from drt.sources.sqlite import SQLiteSource
from report import said, tell

BATCH = 100


def main() -> None:
    """Send every row that was marked."""
    logging.disable(logging.CRITICAL)
    asked = said("push")
    sync = SyncConfig.model_validate(
        {
            "name": "push",
            "model": "SELECT id, notes FROM changed",
            "destination": {
                "type": "rest_api",
                "url": f"{asked.url}/batch",
                "method": "POST",
                "headers": {"Content-Type": "application/json"},
                "body_mode": "batch",
                "batch_template": '{"records": {{ rows | tojson }}}',
                "max_records_per_request": BATCH,
            },
            "sync": {"mode": "full", "batch_size": 1000, "rate_limit": {"requests_per_second": 100_000}},
        }
    )
    profile = SQLiteProfile(type="sqlite", database=asked.database.removeprefix("sqlite:///"))
    began, cpu = time.perf_counter(), time.process_time()
    result = run_sync(sync, SQLiteSource(), RestApiDestination(), profile, Path(asked.folder))
    if result.failed:
        raise RuntimeError(result.errors[:3])
    tell(began, cpu, rows=result.success)


if __name__ == "__main__":
    main()
