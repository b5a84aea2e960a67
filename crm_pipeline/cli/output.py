"""What commands print: JSON for machines, tables for people, progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from crm_pipeline.instants import to_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from crm_pipeline.sync.reports import Report

Progress: TypeAlias = Callable[[int, int | None], None]
_WIDTH_OF_A_PIPE = 160
OUTCOMES = ("seen", "created", "updated", "unchanged", "skipped", "rejected")


def as_json(document: Any) -> str:
    """Encode as ASCII, so that a record's control characters cannot steer a terminal."""
    return json.dumps(document, indent=2, default=_instant)


def _instant(value: object) -> str:
    if isinstance(value, datetime):
        return to_text(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def console(*, stderr: bool = False) -> Console:
    """Return a console that takes text as it is: what a CRM sent is no markup."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDTH_OF_A_PIPE
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[str] = ()) -> Table:
    """Build a table; columns named in ``numbers`` align right, None is shown as a dash."""
    from rich import box
    from rich.table import Table

    built = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in columns:
        built.add_column(column, justify="right" if column in numbers else "left", no_wrap=column in numbers)
    for row in rows:
        built.add_row(*(_cell(value) for value in row))
    return built


def facts(pairs: Mapping[str, object]) -> Table:
    """Build a table of names and values without a head."""
    from rich.table import Table

    built = Table(box=None, show_header=False, pad_edge=False)
    for name, value in pairs.items():
        built.add_row(name, _cell(value))
    return built


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return printable(str(value))


def exact(value: object) -> str | None:
    """Show a field's value so that it can be told from any other: empty text from none, 1.25 from 1.3."""
    if value is None or (isinstance(value, str) and value):
        return value
    return json.dumps(value)


def printable(text: str) -> str:
    """Replace control characters, which could steer the terminal they are shown on."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


def report_document(report: Report) -> dict[str, Any]:
    """One step for machines; contact ids stay out, they are phone numbers."""
    return {
        "step": report.step,
        **report.counts.as_dict(),
        "api_calls": report.api_calls,
        "pages": report.pages,
        "conflicts": report.conflicts,
        "pending": report.pending,
        "watermark": report.watermark,
        "duration_seconds": round(report.duration_seconds, 3),
        "note": report.note,
    }


def report_table(reports: Sequence[Report]) -> Table:
    """Steps for people: seen is the sum of the five outcomes after it."""
    numbers = (*OUTCOMES, "API calls", "seconds")
    rows = [
        (
            report.step,
            *(report.counts.as_dict()[name] for name in OUTCOMES),
            report.api_calls,
            report.duration_seconds,
            report.note,
        )
        for report in reports
    ]
    return table(("step", *numbers, "note"), rows, numbers=numbers)


@contextmanager
def progress(label: str) -> Iterator[Progress]:
    """Show a bar on standard error while the block runs; nothing where no person watches."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, TimeElapsedColumn(), console=console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
