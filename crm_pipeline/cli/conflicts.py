"""`conflicts`: fields that both sides changed differently, and which side was right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from crm_pipeline.cli.options import LARGEST_ID, CommandError, Options
from crm_pipeline.cli.output import exact, facts, table

if TYPE_CHECKING:
    from crm_pipeline.service import ExternalCrmService
    from crm_pipeline.store.ledger import LedgerEntry

app = typer.Typer(
    help="Fields that both sides changed differently.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ConflictId = Annotated[int, typer.Argument(metavar="ID", max=LARGEST_ID, help="As listed.")]


@app.command("list")
def show_all(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="Show so many, oldest first.")] = 100,
    every: Annotated[
        bool, typer.Option("--all", help="The last ones, those settled by a rule or a person included.")
    ] = False,
) -> None:
    """List which fields of which contacts wait for a person, without their values."""
    options = Options.of(context)
    with options.service() as service:
        if every:
            found, total = service.past_conflicts(limit)
        else:
            found, total = service.conflicts(limit), service.get_status()["conflicts"]
    rows = [
        (each.id, each.contact_id, each.field, each.opened_at, each.winner, each.settled_at) for each in found
    ]
    columns = ("id", "contact", "field", "since", "winner", "settled")
    options.answer(
        {"conflicts": [_document(each) for each in found], "total": total},
        table(columns, rows, numbers=("id",)) if found else "No field waits.",
    )
    if len(found) < total:
        typer.echo(f"{len(found)} of {total} shown; --limit shows more", err=True)


@app.command()
def show(context: typer.Context, conflict_id: ConflictId) -> None:
    """Show what each side holds, personal data included."""
    options = Options.of(context)
    with options.service() as service:
        found = service.conflict(conflict_id)
    if found is None:
        raise CommandError(f"There is no conflict {conflict_id}")
    document = {
        **_document(found),
        "external": found.external,
        "internal": found.internal,
        "policy": found.policy,
        "run_id": found.run_id,
    }
    shown = {**document, "external": exact(found.external), "internal": exact(found.internal)}
    options.answer(document, facts(shown))


@app.command()
def resolve(
    context: typer.Context,
    conflict_id: ConflictId,
    external: Annotated[bool, typer.Option("--external", help="The CRM is right.")] = False,
    internal: Annotated[bool, typer.Option("--internal", help="The contact is right.")] = False,
) -> None:
    """Give the field one side's value on both sides.

    The contact has it at once; the CRM hears of it with the next push.
    """
    if external == internal:
        raise typer.BadParameter("say --external or --internal")
    winner: Any = "external" if external else "internal"
    options = Options.of(context)
    with options.service() as service:
        found = _open_conflict(service, conflict_id)
        service.resolve_conflict(conflict_id, winner)
        left = service.get_status()["conflicts"]
    then = (
        "the contact holds the CRM's value" if external else "the next push writes the contact's to the CRM"
    )
    options.answer(
        {**_document(found), "winner": winner, "still_open": left},
        f"Settled {found.field} of {found.contact_id}: {then}. Still open: {left}.",
    )


def _open_conflict(service: ExternalCrmService, conflict_id: int) -> LedgerEntry:
    found = service.conflict(conflict_id)
    if found is None or not found.open:
        raise CommandError(f"There is no open conflict {conflict_id}")
    return found


def _document(conflict: LedgerEntry) -> dict[str, Any]:
    return {
        "id": conflict.id,
        "contact_id": conflict.contact_id,
        "field": conflict.field,
        "opened_at": conflict.opened_at,
        "winner": conflict.winner,
        "settled_at": conflict.settled_at,
    }
