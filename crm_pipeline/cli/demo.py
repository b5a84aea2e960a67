"""`demo`: a CRM, a database, Dagster and the API with made-up contacts, set up, played and checked."""

from __future__ import annotations

import secrets
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crm_pipeline import instants
from crm_pipeline.cli.options import CommandError, Options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from crm_pipeline.cli.dagster_ui import DagsterUi
    from crm_pipeline.cli.demo_story import Story
    from crm_pipeline.cli.http_api import HttpApi

START_SECONDS = 180.0
_DATABASE = "crm_pipeline.db"


def demo(
    context: typer.Context,
    once: Annotated[
        bool, typer.Option("--once", help="Stop after the summary; 0 only if every check held.")
    ] = False,
    contacts: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="Contacts in the simulated CRM.")
    ] = 1000,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the Dagster UI; a free one when it is taken.")
    ] = 3000,
    api_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the HTTP API; a free one when it is taken.")
    ] = 8080,
) -> None:
    """Show everything on made-up contacts: two-way syncs, webhooks, with a summary that is checked."""
    from crm_pipeline.cli.dagster_ui import DagsterUi, environment_without
    from crm_pipeline.cli.demo_story import Story
    from crm_pipeline.cli.http_api import HttpApi
    from crm_pipeline.cli.pipeline import Ports, pipeline
    from crm_pipeline.cli.processes import sole, stoppable, wait_until
    from crm_pipeline.settings import Settings
    from crm_pipeline.simulators.generic import CONTACTS_PATH, GenericCrm, create_app
    from crm_pipeline.simulators.serve import running

    options, project = Options.of(context), Path.cwd()
    folder, crm = project / "var" / "demo", GenericCrm.seeded(contacts)
    environment = environment_without([name.upper() for name in Settings.model_fields])
    with stoppable(), sole(folder.with_suffix(".lock")) as lock, running(create_app(crm)) as crm_url:
        _make_fresh(folder)
        key, secret = secrets.token_hex(16), secrets.token_hex(16)
        _configure(folder, f"{crm_url}{CONTACTS_PATH}", crm.options.api_key, key, secret)
        with pipeline(
            project,
            folder / "dagster",
            Ports(port, api_port),
            folder=folder,
            environment=environment,
            lock=lock,
            logs=folder,
        ) as started:
            ui, api = DagsterUi(started.ui_url), HttpApi(started.api_url, key)
            story = Story(crm, folder / _DATABASE, ui, api, secret, _say, started.alive)
            _say(f"A simulated CRM with {contacts} contacts answers at {crm_url}; Dagster is starting")
            wait_until(
                lambda: _up(ui, api, story), seconds=START_SECONDS, what="starting Dagster and the API"
            )
            story.play()
            _answer(options, story)
            if not once:
                _stay(ui, story, crm_url, key)
    failed = [check for check in story.checks if not check.held]
    if failed:
        raise CommandError(
            "\n".join(f"Failed: {each.what}: expected {each.expected}, found {each.found}" for each in failed)
        )


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _make_fresh(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()


def _configure(folder: Path, crm_url: str, crm_key: str, key: str, secret: str) -> None:
    """Write the demo's settings as a user would: an .env and a connection file."""
    shutil.copyfile(Path(__file__).with_name("demo_connection.yaml"), folder / "connection.yaml")
    variables = {
        "EXTERNAL_CRM_ENABLED": "true",
        "EXTERNAL_CRM_API_URL": crm_url,
        "EXTERNAL_CRM_API_KEY": crm_key,
        "EXTERNAL_CRM_CONFIG": "connection.yaml",
        "EXTERNAL_CRM_PUSH": "auto",
        # As far back as the made-up contacts go, so that the days in the UI are days with something in them.
        "EXTERNAL_CRM_FIRST_DAY": (instants.now() - timedelta(days=31)).date().isoformat(),
        "EXTERNAL_CRM_WEBHOOK_SECRET": secret,
        "CRM_API_KEY": key,
        "DATABASE_URL": f"sqlite:///{_DATABASE}",
    }
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))


def _up(ui: DagsterUi, api: HttpApi, story: Story) -> bool:
    story.alive()
    return ui.loaded() and api.up()


def _answer(options: Options, story: Story) -> None:
    from rich.console import Group

    from crm_pipeline.cli.demo_story import FIGURES, document
    from crm_pipeline.cli.output import table

    columns = ("sync", "step", *FIGURES[:-2], "API calls", "seconds")
    rows = [(row.sync, row.step, *(row.figures[name] for name in FIGURES)) for row in story.rows]
    held = sum(check.held for check in story.checks)
    shown: list[RenderableType] = ["", table(columns, rows, numbers=columns[2:]), ""]
    shown.append(f"{held} of {len(story.checks)} checks held")
    options.answer(document(story), Group(*shown))


def _stay(ui: DagsterUi, story: Story, crm_url: str, key: str) -> None:
    """Keep everything up until Ctrl-C.

    Raises:
        CommandError: Dagster or the API ended by itself.
    """
    from crm_pipeline.cli.processes import until_interrupted

    _say(f"Dagster UI      {ui.url}")
    _say(f"HTTP API        {story.api.url}/api/external/status (send the header 'X-API-Key: {key}')")
    _say(f"Simulated CRM   {crm_url}/sim/stats")
    _say(f"Settings        {story.database.parent / '.env'} (crm-pipeline status works in that folder)")
    _say("Ctrl-C stops everything")
    until_interrupted(story.alive)
