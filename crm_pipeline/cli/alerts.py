"""`alerts`: what is wrong now, and whether people would hear of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from crm_pipeline import instants
from crm_pipeline.cli.options import CommandError, Options
from crm_pipeline.cli.output import table

if TYPE_CHECKING:
    from crm_pipeline.alerting.conditions import Condition
    from crm_pipeline.store.alerts import Incident

app = typer.Typer(help="What is wrong now, and who is told.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def show_all(context: typer.Context) -> None:
    """List what is wrong now, since when, and which channels have been told."""
    from rich.console import Group

    from crm_pipeline.alerting.conditions import conditions
    from crm_pipeline.alerting.keeper import our_runs
    from crm_pipeline.store import alerts
    from crm_pipeline.store.engine import reading

    options = Options.of(context)
    with options.service() as service:
        noted, name = service.incidents(), service.connection.name
        seen = service.evidence(look=False)
        with reading(service.engine) as tx:
            found, watch = conditions(seen, our_runs(tx, name)), alerts.watch(tx, name)
    documents = [_document(each, each.opened_at, each.told) for each in noted]
    known = {each.key for each in noted}
    documents += [_document(each, None, ()) for each in found if each.key not in known]
    looked_at = None if watch is None else watch.looked_at
    columns = ("what", "severity", "since", "told", "text")
    rows = [
        (each["key"], each["severity"], each["openedAt"], ", ".join(each["told"]), each["text"])
        for each in documents
    ]
    if looked_at is None:
        last = "alert_sensor has never looked: runs of Dagster were not judged."
    else:
        last = f"alert_sensor last looked at {instants.to_text(looked_at)}."
    shown = table(columns, rows) if rows else "Nothing is wrong."
    options.answer({"alerts": documents, "lookedAt": looked_at}, Group(shown, last))


def _document(each: Incident | Condition, opened_at: datetime | None, told: Sequence[str]) -> dict[str, Any]:
    return {
        "key": each.key,
        "severity": "error" if each.grave else "warning",
        "openedAt": opened_at,
        "told": list(told),
        "text": each.text,
        "figures": dict(each.figures),
    }


@app.command()
def test(context: typer.Context) -> None:
    """Send a test message to each channel that is set."""
    from crm_pipeline.alerting.channels import channels_of
    from crm_pipeline.alerting.delivery import deliver
    from crm_pipeline.alerting.messages import trial

    options = Options.of(context)
    settings = options.settings()
    channels = channels_of(settings)
    if not channels:
        raise CommandError("no channel is set: ALERT_SLACK_URL, ALERT_URL or ALERT_MAIL_TO")
    name = settings.connection.name
    results = dict.fromkeys(channels, "")
    for channel, failure in deliver(name, channels, dict.fromkeys(channels, trial(name))):
        results[channel] = "sent" if failure is None else f"failed ({failure})"
    options.answer({"channels": results}, table(("channel", "result"), list(results.items())))
    if set(results.values()) != {"sent"}:
        raise CommandError("not every channel took the message")
