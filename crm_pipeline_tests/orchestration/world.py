"""Both sides and Dagster between them: what tests of whole runs work on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import sqlalchemy as sa

from crm_pipeline import ExternalCrmService
from crm_pipeline.definitions import defs
from crm_pipeline.simulators.generic import GenericCrm
from crm_pipeline.sync.reception import Arrival, Receipt

SEEDED = 60
DAYS = 20
CONNECTION = """
listing:
  modified_since: {param: updated_since}
  modified_before: {param: updated_before}
  sorted_by_modified: true
writing:
  batch_update: {path: /batch, envelope: records}
  batch_create: {path: /batch, envelope: records}
"""


@dataclass
class World:
    """A CRM over a socket, a database, and Dagster's instance."""

    crm: GenericCrm
    instance: dg.DagsterInstance
    database_url: str
    resources: dict[str, Any]
    evaluations: dict[str, bool] = field(default_factory=dict)
    """Whether the checks of the latest run passed, by name."""

    def run(self, job: str, **run: Any) -> dict[str, dict[str, Any]]:
        """Run a job to its good end; the metadata of each asset."""
        result = self.attempt(job, **run)
        assert result.success
        self.evaluations = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
        return {
            event.asset_key.to_user_string(): {
                name: value.value
                for name, value in event.step_materialization_data.materialization.metadata.items()
            }
            for event in result.all_events
            if event.is_step_materialization and event.asset_key
        }

    def attempt(self, job: str, **run: Any) -> dg.ExecuteInProcessResult:
        """Run a job to whatever end."""
        return defs.resolve_job_def(job).execute_in_process(
            instance=self.instance, resources=self.resources, raise_on_error=False, **run
        )

    def tick(self, sensor: dg.SensorDefinition) -> dg.RunRequest | str | None:
        """Tick a sensor: the one run it asks for, or why it asks for none."""
        with dg.build_sensor_context(
            instance=self.instance, definitions=defs, resources=self.resources
        ) as context:
            data = sensor.evaluate_tick(context)
        if not data.run_requests:
            return data.skip_message
        (request,) = data.run_requests
        return request

    def receive(self, *payloads: dict[str, Any], event_id: str | None = None) -> list[Receipt]:
        """Webhooks come in, all in one request."""
        with ExternalCrmService(self.database_url) as service:
            return service.receive([Arrival(payload, event_id, "request") for payload in payloads])

    def sql(self, statement: str) -> int:
        """Run a statement as another program would; how many rows it touched."""
        with self._begin() as tx:
            return tx.execute(sa.text(statement)).rowcount

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with self._begin() as tx:
            return [tuple(row) for row in tx.execute(sa.text(query))]

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        engine = sa.create_engine(self.database_url)
        with engine.begin() as tx:
            yield tx
        engine.dispose()
