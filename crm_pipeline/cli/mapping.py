"""`mapping preview`: one record in, the contact out, with a reason for each field."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from crm_pipeline.cli.options import CommandError, Options
from crm_pipeline.cli.output import exact, table

app = typer.Typer(help="See what the mapping does.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """See what the mapping does."""


@app.command()
def preview(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A record as JSON; - reads standard input.")
    ] = None,
    record_id: Annotated[
        str | None, typer.Option("--id", help="Read the record with this id from the CRM.")
    ] = None,
) -> None:
    """Show what the mapping makes of one record, without storing anything."""
    if (file is None) == (record_id is None):
        raise typer.BadParameter("name a file, or - for standard input, or --id")
    options = Options.of(context)
    with options.service() as service:
        if record_id is not None:
            found = service.connector.read([record_id])
            if not found:
                raise CommandError("the CRM has no record with this id")
            record = found[0].payload
        else:
            record = _record(file or Path("-"))
        if not isinstance(record, dict):
            raise CommandError("the record is not a JSON object: one record at a time, not a list or a text")
        told = service.preview(record)
    fields = [
        {"field": each.name, "from": each.source, "raw": each.raw, "value": each.value, "reason": each.reason}
        for each in told.fields
    ]
    rows = [(each.name, each.source, exact(each.value), each.reason) for each in told.fields]
    document = {"fields": fields, "contact": told.contact, "rejected": told.rejected}
    options.answer(document, table(("field", "from", "value", "why"), rows))
    shown = {each.name for each in told.fields if each.reason.startswith("rejected")}
    for name, reason in told.rejected.items():
        if name not in shown:  # of a hook, or of the record as a whole
            typer.echo(f"rejected: {name}: {reason}", err=True)
    if told.contact is None and not told.rejected:
        typer.echo("left out: map_external_to_internal returns None for it", err=True)
    if told.rejected:
        raise typer.Exit(1)


def _record(file: Path) -> Any:
    """Read one record. Its text is never repeated in an error."""
    from crm_pipeline import jsonio

    try:
        return jsonio.loads(sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes())
    except ValueError:
        pass
    raise CommandError("the record is not JSON")
