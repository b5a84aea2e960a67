"""`status`: how the sync is doing, and the settings in force."""

from __future__ import annotations

from typing import Any

import typer

from crm_pipeline.cli.options import Options
from crm_pipeline.cli.output import facts


def status(context: typer.Context) -> None:
    """Show how the sync stands and the settings in force, without secrets."""
    options = Options.of(context)
    with options.service() as service:
        state = service.get_status()
        settings = service.settings.public()
    options.answer({**state, "settings": settings}, facts(_flat(state) | _flat(settings)))


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """Name nested values by their path, as in ``runs.pull.state``."""
    flat: dict[str, object] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return flat
