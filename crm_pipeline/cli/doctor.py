"""`doctor`: whether everything a sync needs is there, and what to do about what is not."""

from __future__ import annotations

import typer

from crm_pipeline.cli.options import Options
from crm_pipeline.cli.output import table


def doctor(context: typer.Context) -> None:
    """Check settings, database, CRM, credentials, clock, and the CRM's fields against the mapping."""
    options = Options.of(context)
    with options.service() as service:
        findings = service.doctor()
    document = [
        {"subject": each.subject, "grade": each.grade.value, "text": each.text, "cure": each.cure}
        for each in findings
    ]
    rows = [(each.grade.value, each.subject, each.text, each.cure) for each in findings]
    options.answer({"findings": document}, table(("", "what", "found", "what to do"), rows))
    if any(each.grade.value == "bad" for each in findings):
        raise typer.Exit(1)
