"""`polling`: the schedule's switch, kept in the database for every process to see."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from crm_pipeline.cli.options import Options


class Switch(StrEnum):
    """The two positions."""

    ON = "on"
    OFF = "off"


def polling(context: typer.Context, to: Annotated[Switch, typer.Argument(help="Where to set it.")]) -> None:
    """Switch the polling schedule on or off, until it is switched again.

    EXTERNAL_CRM_SYNC_MODE only says where the switch stands at first.
    """
    options = Options.of(context)
    with options.service() as service:
        if to is Switch.ON:
            service.start_polling()
        else:
            service.stop_polling()
    options.answer({"polling": to == Switch.ON}, f"Polling is {to}.")
