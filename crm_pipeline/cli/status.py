"""`status`: how the sync is doing, and the settings in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from crm_pipeline.cli.options import Options
from crm_pipeline.cli.output import OUTCOMES, facts, table

if TYPE_CHECKING:
    from rich.console import RenderableType


def status(context: typer.Context) -> None:
    """Show how the sync stands and the settings in force, without secrets."""
    options = Options.of(context)
    with options.service() as service:
        state = service.get_status()
        settings = service.settings.public()
    from rich.console import Group

    options.answer({**state, "settings": settings}, Group(*_sections(state, settings)))


def _sections(state: dict[str, Any], settings: dict[str, Any]) -> list[RenderableType]:
    runs = {step: run for step, run in state["runs"].items() if run}
    error = state["lastError"]
    plain = {name: value for name, value in state.items() if name not in {"runs", "lastError", "totals"}}
    sections: list[RenderableType] = [facts(plain)]
    if error:
        sections += ["", f"Last error, in {error['step']} at {error['at']}: {error['reason']}"]
    if runs:
        columns = ("last run", "state", *OUTCOMES, "API calls", "finished")
        rows = [
            (step, run["state"], *_counts(run), run["apiCalls"], run["finishedAt"])
            for step, run in runs.items()
        ]
        sections += ["", table(columns, rows, numbers=(*OUTCOMES, "API calls"))]
    if state["totals"]:
        ever = ("since ever", "runs", "failed", *OUTCOMES, "API calls", "seconds a call")
        sections += ["", table(ever, _totals(state["totals"]), numbers=ever[1:])]
    return [*sections, "", facts(settings)]


def _totals(totals: dict[str, dict[str, float]]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for step, ever in totals.items():
        runs, failed, calls = (int(ever.get(name, 0)) for name in ("runs_done", "runs_failed", "calls"))
        outcomes = (int(ever.get(name, 0)) for name in OUTCOMES)
        mean = f"{ever.get('call_seconds', 0.0) / calls:.3f}" if calls else None
        rows.append((step, runs + failed, failed, *outcomes, calls, mean))
    return rows


def _counts(run: dict[str, Any]) -> list[object]:
    """Figures of a run; none while it runs, or when it failed."""
    counts = run["counts"] or {}
    return [counts.get(name) for name in OUTCOMES]
