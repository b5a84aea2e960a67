"""Resources: credentials and lifetimes, their secrets unreadable in the web interface."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from crm_pipeline.logs import log_steps
from crm_pipeline.orchestration.alive import sign_of_life
from crm_pipeline.orchestration.safely import told_safely
from crm_pipeline.settings import load_settings

if TYPE_CHECKING:
    from crm_pipeline.service import ExternalCrmService

_SECRET: dict[str, Any] = {"dagster__is_secret": True}


class Database(dg.ConfigurableResource[Any]):
    """The database that holds the contacts and everything the sync remembers."""

    url: str | None = Field(
        None, description="SQLAlchemy URL; DATABASE_URL when not given", json_schema_extra=_SECRET
    )


class ExternalCrm(dg.ConfigurableResource[Any]):
    """The CRM account; all else about it is in the settings and the connection file."""

    api_key: str | None = Field(
        None, description="Credential; EXTERNAL_CRM_API_KEY when not given", json_schema_extra=_SECRET
    )

    @contextmanager
    def service(self, database: Database, run_id: str = "") -> Iterator[ExternalCrmService]:
        """Open the sync of the CRM and a database: what EXTERNAL_CRM_SERVICE names, or the plain service.

        Raises:
            dagster.Failure: whatever goes wrong inside, in words that may be shown.
        """
        from crm_pipeline.service import service_from_settings  # noqa: PLC0415 - not needed to load definitions

        given: dict[str, Any] = {"database_url": database.url, "external_crm_api_key": self.api_key}
        with told_safely():
            settings = load_settings(**{name: value for name, value in given.items() if value is not None})
            log_steps(settings.log_format)
            with (
                service_from_settings(settings, run_id) as service,
                sign_of_life(service.engine, run_id) if run_id else nullcontext(),
            ):
                yield service


def variable(name: str) -> dg.EnvVar | None:
    """A reference to an environment variable, so that its value is never stored; None when it is not set.

    Dagster fails every run whose resources refer to a missing variable. Without a reference the
    settings decide: they read ``.env`` too, and have defaults.
    """
    return dg.EnvVar(name) if os.environ.get(name) else None
