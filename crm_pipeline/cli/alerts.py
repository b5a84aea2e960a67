"""`alerts`: what is wrong now, and whether people would hear of it."""

from __future__ import annotations

import typer

from crm_pipeline.cli.options import CommandError, Options
from crm_pipeline.cli.output import table

app = typer.Typer(help="What is wrong now, and who is told.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def show_all(context: typer.Context) -> None:
    """List what is wrong now, since when, and which channels have been told."""
    options = Options.of(context)
    with options.service() as service:
        found = service.incidents()
    columns = ("what", "severity", "since", "told", "text")
    rows = [
        (each.key, _severity(grave=each.grave), each.opened_at, ", ".join(each.told), each.text)
        for each in found
    ]
    documents = [
        {
            "key": each.key,
            "severity": _severity(grave=each.grave),
            "openedAt": each.opened_at,
            "told": list(each.told),
            "text": each.text,
            "figures": dict(each.figures),
        }
        for each in found
    ]
    options.answer({"alerts": documents}, table(columns, rows) if found else "Nothing is wrong.")


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


def _severity(*, grave: bool) -> str:
    return "error" if grave else "warning"
