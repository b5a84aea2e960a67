"""`forget`: everything that is kept of a person is removed, for good."""

from __future__ import annotations

from typing import Annotated

import typer

from crm_pipeline.cli.options import Options


def forget(
    context: typer.Context,
    contact: Annotated[
        str, typer.Argument(metavar="CONTACT", help="Its WhatsApp id or phone number, in any spelling.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a contact with everything that is kept of it, and let no sync bring it back.

    The record in the CRM stays: delete it there, too.
    """
    if not yes:
        typer.confirm("This cannot be undone. Go on?", abort=True, err=True)
    options = Options.of(context)
    with options.service() as service:
        removed = service.forget(contact)
    options.answer(
        {"removed": removed}, f"Removed: {removed} rows. Delete the record in the CRM, too, and your backups."
    )
