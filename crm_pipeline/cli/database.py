"""`db`: the database's shape."""

from __future__ import annotations

import typer

from crm_pipeline.cli.options import CommandError, Options

app = typer.Typer(help="Look after the database.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def upgrade(context: typer.Context) -> None:
    """Bring the database to the shape this version needs."""
    _check_or_change(context, change=True)


@app.command("status")
def show(context: typer.Context) -> None:
    """Tell whether the database has the shape this version needs; 1 when it has not."""
    _check_or_change(context, change=False)


def _check_or_change(context: typer.Context, *, change: bool) -> None:
    from crm_pipeline.store.engine import open_database, reading
    from crm_pipeline.store.migrate import applied, newest, upgrade

    options = Options.of(context)
    engine = open_database(options.settings().database_url)
    try:
        with reading(engine) as tx:
            before = applied(tx)
        if change:
            upgrade(engine)
        with reading(engine) as tx:
            after = applied(tx)
    finally:
        engine.dispose()
    if not change and after != newest():
        raise CommandError(
            f"The database is at {after or 'nothing yet'}, this version needs {newest()}: "
            "run crm-pipeline db upgrade"
        )
    options.answer({"before": before, "revision": after}, f"The database is at revision {after}.")
