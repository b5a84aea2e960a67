"""`pull`, `push` and `sync`: the steps of the pipeline, run here and now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from crm_pipeline.cli.options import CommandError, Options
from crm_pipeline.cli.output import progress, report_document, report_table

if TYPE_CHECKING:
    from crm_pipeline.sync.reports import Report

_FORM = "must be a date such as 2025-01-31 or a time such as 2025-01-31T09:00:00+07:00"


def _moment(text: str | None, *, end: bool) -> datetime | None:
    """Read a date or an instant; without an offset it is UTC.

    A date means the whole day: as an end it is the midnight after it.
    """
    if text is None:
        return None
    try:
        if len(text) == len("2025-01-31"):
            day = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
            return day + timedelta(days=1) if end else day
        instant = datetime.fromisoformat(text)
        return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(_FORM) from None


def _since(text: str | None) -> datetime | None:
    return _moment(text, end=False)


def _until(text: str | None) -> datetime | None:
    return _moment(text, end=True)


Since = Annotated[
    datetime | None,
    typer.Option(parser=_since, metavar="WHEN", help="From this date or time on (UTC unless it says)."),
]
Until = Annotated[
    datetime | None,
    typer.Option(parser=_until, metavar="WHEN", help="Up to this time, or to the end of this date."),
]


AllowDeletes = Annotated[
    bool,
    typer.Option("--allow-deletes", help="Archive contacts the CRM has no more, however many they are."),
]


def pull(
    context: typer.Context,
    since: Since = None,
    until: Until = None,
    remap: Annotated[
        bool, typer.Option("--remap", help="Do not read the CRM: apply again what had landed.")
    ] = False,
    allow_deletes: AllowDeletes = False,
) -> None:
    """Read the CRM and apply what came to the contacts.

    Without a window it goes on where the last pull ended.
    """
    if since and until and since >= until:
        raise typer.BadParameter("--since must be before --until")
    options = Options.of(context)
    reports: list[Report] = []
    with options.service() as service:
        if remap:
            typer.echo(f"{service.remap(since, until)} landed records are applied again", err=True)
        else:
            with progress("Reading the CRM") as bar:
                reports.append(service.pull(since, until, progress=bar))
        with progress("Applying") as bar:
            reports.append(service.apply(progress=bar, allow_deletes=allow_deletes))
    _answer(options, reports)


def push(context: typer.Context) -> None:
    """Write changed contacts to the CRM."""
    options = Options.of(context)
    with options.service() as service, progress("Writing to the CRM") as bar:
        report = service.push(progress=bar)
    _answer(options, [report])


def sync(
    context: typer.Context,
    no_push: Annotated[bool, typer.Option("--no-push", help="Write nothing to the CRM.")] = False,
    allow_deletes: AllowDeletes = False,
) -> None:
    """Pull, apply and push, as one worker."""
    options = Options.of(context)
    with options.service() as service, progress("Syncing") as bar:
        reports = service.sync(push=not no_push, progress=bar, allow_deletes=allow_deletes)
        if not no_push and service.settings.external_crm_push == "off":
            typer.echo("EXTERNAL_CRM_PUSH is off: nothing was written to the CRM", err=True)
    _answer(options, reports)


def _answer(options: Options, reports: Sequence[Report]) -> None:
    options.answer({"steps": [report_document(report) for report in reports]}, report_table(reports))
    pending = sum(report.pending for report in reports)
    if pending:
        raise CommandError(f"{pending} writes are left for the next push: the CRM did not take them now")
