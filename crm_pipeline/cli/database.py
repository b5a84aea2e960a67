"""`db`: the database's shape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crm_pipeline.cli.options import CommandError, Options

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

app = typer.Typer(help="Look after the database.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def upgrade(context: typer.Context) -> None:
    """Bring the database to the shape this version needs."""
    _check_or_change(context, change=True)


@app.command("status")
def show(context: typer.Context) -> None:
    """Tell whether the database has the shape this version needs; 1 when it has not."""
    _check_or_change(context, change=False)


@app.command()
def copy(
    context: typer.Context,
    to: Annotated[
        str, typer.Option("--to", metavar="URL", help="The empty database that everything is written to.")
    ],
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="The database that is read; DATABASE_URL when not given."),
    ] = None,
) -> None:
    """Copy everything from one database to another, as from SQLite to PostgreSQL."""
    from crm_pipeline.cli.output import progress, table
    from crm_pipeline.store.copying import CopyError, move

    options = Options.of(context)
    with ExitStack() as stack:
        old = stack.enter_context(_open(source or options.settings().database_url, "--from"))
        new = stack.enter_context(_open(to, "--to"))
        try:
            with progress("Copying") as told:
                moved = move(old, new, told)
        except CopyError as error:
            raise CommandError(str(error)) from None
    numbers = ("rows",)
    shown = table(
        ("table", *numbers, "checksum"),
        [(each.table, each.rows, each.checksum) for each in moved],
        numbers=numbers,
    )
    document = {each.table: {"rows": each.rows, "checksum": each.checksum} for each in moved}
    options.answer({"tables": document}, shown)


@contextmanager
def _open(url: str, option: str) -> Iterator[Engine]:
    """A database that is there; SQLite would make one."""
    from sqlalchemy.engine import make_url

    from crm_pipeline.settings import DATABASE_FORM, checked_database_url
    from crm_pipeline.store.engine import open_database

    try:
        checked = make_url(checked_database_url(url))
    except ValueError:
        raise typer.BadParameter(DATABASE_FORM, param_hint=option) from None
    if checked.get_backend_name() == "sqlite" and not Path(str(checked.database)).is_file():
        raise CommandError(f"{option}: there is no such SQLite database; crm-pipeline db upgrade makes one")
    engine = open_database(checked.render_as_string(hide_password=False))
    try:
        yield engine
    finally:
        engine.dispose()


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
