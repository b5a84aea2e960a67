"""`history`: how a contact's fields came to hold what they hold."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from crm_pipeline.cli.options import Options
from crm_pipeline.cli.output import exact, table


def history(
    context: typer.Context,
    contact: Annotated[
        str, typer.Argument(metavar="CONTACT", help="Its WhatsApp id or phone number, in any spelling.")
    ],
) -> None:
    """Show what changed in a contact, when, by which side and rule; personal data included.

    The newest change comes last. Changes under an earlier number of the contact belong to it.
    """
    options = Options.of(context)
    with options.service() as service:
        found = service.history(contact)
    columns = ("at", "field", "side", "rule", "old", "new", "run", "record", "event")
    rows = [
        (
            each.at,
            each.field,
            each.side,
            each.rule,
            exact(each.old),
            exact(each.new),
            each.run_id,
            each.record_id,
            each.event_id,
        )
        for each in found
    ]
    options.answer(
        {"changes": [asdict(each) for each in found]},
        table(columns, rows, numbers=("record", "event")) if found else "No change of this contact is known.",
    )
