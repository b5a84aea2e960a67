"""The command line's entry: global options, the commands, and how failures end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from crm_pipeline import __version__
from crm_pipeline.cli import (
    alerts,
    conflicts,
    dagster_commands,
    database,
    demo,
    dev,
    doctor,
    forget,
    history,
    mapping,
    polling,
    reconcile,
    rejects,
    serve,
    simulate,
    status,
    syncing,
    up,
)
from crm_pipeline.cli.options import Options

app = typer.Typer(
    name="crm-pipeline",
    help="Keep contacts and an external CRM in agreement, in both directions.",
    epilog="Global options may also stand after the command.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # with rich, --help alone takes three times as long
    pretty_exceptions_enable=False,
)
app.command()(syncing.pull)
app.command()(syncing.push)
app.command()(syncing.sync)
app.command()(reconcile.reconcile)
app.command()(polling.polling)
app.command()(serve.serve)
app.command()(status.status)
app.command()(doctor.doctor)
app.command()(history.history)
app.command()(forget.forget)
app.add_typer(mapping.app, name="mapping")
app.add_typer(rejects.app, name="rejects")
app.add_typer(conflicts.app, name="conflicts")
app.add_typer(alerts.app, name="alerts")
app.add_typer(database.app, name="db")
app.add_typer(simulate.app, name="simulate")
app.command()(demo.demo)
app.command()(dev.dev)
app.command()(up.up)
app.add_typer(dagster_commands.app, name="dagster")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _globals(
    context: typer.Context,
    env_file: Annotated[
        Path | None, typer.Option("--env-file", metavar="FILE", help="Read this file instead of .env.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    del debug, version  # ``run`` and the callback see to them
    context.obj = Options(env_file=env_file, json=json, answered=context.obj)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave: 0 success, 1 failure, 2 wrong usage.

    Raises:
        SystemExit: always.
    """
    ordered = globals_first(sys.argv[1:] if arguments is None else arguments)
    answered: list[str] = []
    try:
        app(ordered, prog_name="crm-pipeline", obj=answered)
    except Exception as error:
        if "--debug" in ordered:
            raise
        from crm_pipeline.cli.failures import explain

        told = explain(error)
        typer.echo(told, err=True)
        if "--json" in ordered and not answered:
            _tell_machines(told)
        raise SystemExit(1) from None
    except SystemExit as ended:
        if "--json" in ordered and ended.code == _WRONG_USAGE:
            _tell_machines("wrong usage: standard error says more")
        raise


_WRONG_USAGE = 2


def _tell_machines(text: str) -> None:
    from crm_pipeline.cli.output import as_json

    typer.echo(as_json({"error": text}))


def globals_first(arguments: Sequence[str]) -> list[str]:
    """Put global options before the command, where Typer takes them."""
    first: list[str] = []
    rest: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            rest += [argument, *left]
            break
        if argument in {"--json", "--debug"} or argument.startswith("--env-file="):
            first.append(argument)
        elif argument == "--env-file" and left:
            first += [argument, left.pop(0)]
        else:
            rest.append(argument)
    return first + rest


if __name__ == "__main__":
    run()
