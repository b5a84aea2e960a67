"""`rejects`: records and contacts that could not go through, with their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crm_pipeline.cli.options import LARGEST_ID, CommandError, Options
from crm_pipeline.cli.output import as_json, facts, table
from crm_pipeline.sync.identity import is_address

if TYPE_CHECKING:
    from crm_pipeline.service import ExternalCrmService
    from crm_pipeline.store.rejects import Reject

app = typer.Typer(
    help="Records and contacts that could not go through.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def show_all(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="Show so many, oldest first.")] = 100,
) -> None:
    """List what is rejected and why, without the records themselves.

    The name is the record's id in the CRM, or the event's; what goes by a phone number is not named here.
    """
    options = Options.of(context)
    with options.service() as service:
        found = service.rejects(limit)
        total = service.get_status()["rejected"]
    columns = ("id", "source", "name", "reasons", "attempts", "first", "last", "next attempt")
    rows = [
        (
            each.id,
            each.source,
            _name(each),
            _reasons(each),
            each.attempts,
            each.first_at,
            each.last_at,
            each.next_attempt_at,
        )
        for each in found
    ]
    options.answer(
        {"rejects": [_document(each) for each in found], "total": total},
        table(columns, rows, numbers=("id", "attempts")) if found else "Nothing is rejected.",
    )
    if len(found) < total:
        typer.echo(f"{len(found)} of {total} shown; --limit shows more", err=True)


@app.command()
def show(
    context: typer.Context,
    reject_id: Annotated[int, typer.Argument(metavar="ID", max=LARGEST_ID, help="As listed.")],
) -> None:
    """Show one with the record it is about, personal data included."""
    from crm_pipeline.jsonio import loads

    options = Options.of(context)
    with options.service() as service:
        found = service.reject(reject_id)
    if found is None:
        raise CommandError(f"There is no reject {reject_id}")
    reject: Reject = found["reject"]
    payload = None if found["payload"] is None else loads(found["payload"])
    document = {**_document(reject), "key": reject.key, "payload": payload}
    shown = {**document, "reasons": _reasons(reject), "payload": as_json(payload)}
    options.answer(document, facts(shown))


@app.command()
def replay(
    context: typer.Context,
    reject_ids: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", max=LARGEST_ID, help="As listed.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """Try rejected records again, after the mapping or the record has been mended."""
    if bool(reject_ids) == every:
        raise typer.BadParameter("name the rejects, or use --all")
    options = Options.of(context)
    with options.service() as service:
        _require_known(service, reject_ids or ())
        number = service.replay(None if every else reject_ids)
        left = service.get_status()["rejected"]
    options.answer(
        {"replayed": number, "still_rejected": left}, f"Tried again: {number}. Still rejected: {left}."
    )


@app.command()
def dismiss(
    context: typer.Context,
    reject_ids: Annotated[list[int], typer.Argument(metavar="ID...", max=LARGEST_ID, help="As listed.")],
) -> None:
    """Forget rejects that nobody needs.

    What they are about is left as it is, and tried as usual when it changes or when the mapping
    changes; what fails again is listed again.
    """
    options = Options.of(context)
    with options.service() as service:
        _require_known(service, reject_ids)
        number = service.dismiss(reject_ids)
        left = service.get_status()["rejected"]
    options.answer(
        {"dismissed": number, "still_rejected": left},
        f"Forgotten: {number}. Still rejected: {left}. What fails again is listed again.",
    )


def _require_known(service: ExternalCrmService, reject_ids: Sequence[int]) -> None:
    missing = sorted({each for each in reject_ids if service.reject(each) is None})
    if missing:
        raise CommandError(f"There is no reject {', '.join(map(str, missing))}")


def _reasons(reject: Reject) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reject.reasons.items())


def _name(reject: Reject) -> str | None:
    """What it is about, where that is nobody's phone number."""
    return None if reject.source == "push" or is_address(reject.key) else reject.key


def _document(reject: Reject) -> dict[str, Any]:
    return {
        "id": reject.id,
        "source": reject.source,
        "name": _name(reject),
        "reasons": reject.reasons,
        "attempts": reject.attempts,
        "first_at": reject.first_at,
        "last_at": reject.last_at,
        "next_attempt_at": reject.next_attempt_at,
    }
