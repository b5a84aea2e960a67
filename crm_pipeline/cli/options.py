"""Global options, and what every command does with them: settings, a service, an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

if TYPE_CHECKING:
    from crm_pipeline.service import ExternalCrmService
    from crm_pipeline.settings import Settings


LARGEST_ID = 2**63 - 1
"""No database numbers a row higher."""


class CommandError(Exception):
    """A command cannot do what it was asked; the text says why and what helps."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was said before the command."""

    env_file: Path | None = None
    json: bool = False
    answered: list[str] = field(default_factory=list)
    """Documents printed so far, one at the most: a failure after it has no second one."""

    @staticmethod
    def of(context: typer.Context) -> Options:
        """Return the options of the command line that is running."""
        return cast("Options", context.obj)

    def settings(self) -> Settings:
        """Load settings.

        Raises:
            SettingsError: they are wrong.
        """
        from crm_pipeline.settings import load_settings

        return load_settings(self.env_file)

    @contextmanager
    def service(self) -> Iterator[ExternalCrmService]:
        """Open the service the settings name.

        Raises:
            SettingsError: the settings are wrong.
        """
        settings = self.settings()
        from crm_pipeline.service import service_from_settings

        with service_from_settings(settings) as service:
            yield service

    def answer(self, document: Any, shown: Any) -> None:
        """Print the one answer on standard output: the document for machines, the other for people."""
        if self.json:
            from crm_pipeline.cli.output import as_json

            self.answered.append(as_json(document))
            typer.echo(self.answered[-1])
        else:
            from crm_pipeline.cli.output import console

            console().print(shown)
