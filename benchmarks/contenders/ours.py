"""One step of ours in a process of its own; prints what it cost as one line of JSON."""

from __future__ import annotations

import time
from pathlib import Path

from report import said, tell

from crm_pipeline.service import ExternalCrmService
from crm_pipeline.settings import load_settings
from crm_pipeline.store import state
from crm_pipeline.store.engine import open_database, writing
from crm_pipeline.store.migrate import upgrade

CONNECTION = """
records: {path: records, id: id, modified: updated_at}
listing: {page_size: 1000, modified_since: {param: updated_since, format: iso}}
writing:
  batch_update: {path: /batch, envelope: records, results: results, result_record: record}
"""
CURSOR = "pagination: {style: cursor, size_param: limit, cursor_param: cursor, cursor_path: next_cursor}"
COUNTED = "pagination: {style: page, size_param: limit}"
PAGING = {
    "one": f"{COUNTED}\nlimits: {{in_flight: 1}}",
    "eight": f"{COUNTED}\nlimits: {{in_flight: 8}}",
}
"""First loads by counted pages, so many at once."""


def main() -> None:
    """Do the step."""
    asked = said("first", "again", "poll", "push", *PAGING)
    file = Path(asked.folder, "connection.yaml")
    file.write_text(CONNECTION + PAGING.get(asked.step, CURSOR))
    settings = load_settings(
        external_crm_enabled=True,
        external_crm_api_url=asked.url,
        external_crm_api_key="key-of-the-benchmark",
        external_crm_config=file,
        database_url=asked.database,
    )
    engine = open_database(asked.database)
    upgrade(engine)
    engine.dispose()
    with ExternalCrmService(settings=settings) as service:
        if asked.step == "again":  # everything is read anew, and nothing changed
            with writing(service.engine) as tx:
                state.save(tx, service.connection.name, watermark=None)
        began, cpu = time.perf_counter(), time.process_time()
        reports = service.sync(push=asked.step == "push")
        last = reports[-1] if asked.step == "push" else reports[0]
        written = sum(report.counts.created + report.counts.updated for report in reports[1:])
        tell(began, cpu, rows=last.counts.seen, written=written)


if __name__ == "__main__":
    main()
