"""`reconcile`: both sides compared whole, and what differs silently handed to the sync."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from crm_pipeline.cli.options import CommandError, Options
from crm_pipeline.cli.output import facts, progress, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from crm_pipeline.sync.parity import ReconcileReport


def reconcile(
    context: typer.Context,
    repair: Annotated[
        bool, typer.Option("--repair", help="Let the sync settle what differs silently.")
    ] = False,
    name: Annotated[
        bool, typer.Option("--list", help="Name each difference: contact, record, kind and field.")
    ] = False,
) -> None:
    """Read both sides whole and tell where they differ although nothing waits to be done.

    Ends with 1 when differences remain.
    """
    options = Options.of(context)
    with options.service() as service, progress("Reading the CRM") as bar:
        report = service.reconcile(repair=repair, progress=bar)
    options.answer(_document(report, name=name), _shown(report, name=name))
    if report.note:
        typer.echo(report.note, err=True)
    left = report.remaining if repair else report.differing
    if left:
        raise CommandError(f"{left} pairs differ silently" + ("" if repair else "; --repair mends them"))


def _document(report: ReconcileReport, *, name: bool) -> dict[str, Any]:
    """Figures for machines; contact ids only on request, they are phone numbers."""
    by_kind = [
        {"kind": kind.value, "field": field, "number": number}
        for (kind, field), number in report.by_kind().items()
    ]
    named = [
        {
            "contact_id": each.contact_id,
            "external_id": each.external_id,
            "kind": each.kind.value,
            "field": each.field,
        }
        for each in report.drifts
    ]
    return {
        **report.figures(),
        "known_by_reason": {reason.value: number for reason, number in sorted(report.known.items())},
        "differences_by_kind": by_kind,
        "repaired": report.repaired,
        "pages": report.pages,
        "api_calls": report.api_calls,
        "duration_seconds": round(report.duration_seconds, 3),
        "note": report.note,
        **({"named": named} if name else {}),
    }


def _shown(report: ReconcileReport, *, name: bool) -> RenderableType:
    """Figures for people."""
    from rich.console import Group

    pairs: dict[str, object] = {
        "records read": report.records,
        "pairs compared": report.compared,
        "in agreement": report.agreed,
        "differ silently": report.differing,
    }
    if report.repaired:
        pairs |= {
            "  mended": report.mended,
            "  rejected, for a person": report.for_people,
            "  remaining": report.remaining,
        }
    pairs |= {f"known: {reason.value}": number for reason, number in sorted(report.known.items())}
    pairs |= {"API calls": report.api_calls, "seconds": report.duration_seconds}
    parts: list[RenderableType] = [facts(pairs)]
    kinds = [(kind.value, field, number) for (kind, field), number in report.by_kind().items()]
    if kinds:
        parts += ["", table(("difference", "field", "number"), kinds, numbers=("number",))]
    if name and report.drifts:
        rows = [(each.contact_id, each.external_id, each.kind.value, each.field) for each in report.drifts]
        parts += ["", table(("contact", "record", "difference", "field"), rows)]
    return Group(*parts)
