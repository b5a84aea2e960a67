"""The entry: help, global options, exit codes, and failures in one line."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from sqlalchemy.exc import IntegrityError, OperationalError

from crm_pipeline import __version__
from crm_pipeline.cli.failures import explain
from crm_pipeline.cli.main import app, globals_first, run
from crm_pipeline.cli.options import CommandError
from crm_pipeline.connectors.base import CrmUnavailableError
from crm_pipeline.settings import SettingsError
from crm_pipeline.sync.errors import BusyError
from crm_pipeline_tests.cli.conftest import Cli

SECRET = "s3cr3t-value"


def commands() -> list[tuple[str, ...]]:
    """Every command and group, as it is typed."""
    found: list[tuple[str, ...]] = [()]
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        found.append((name,))
        found += [(name, inner) for inner in getattr(command, "commands", ())]
    return found


def test_the_commands_are_those_of_the_documentation() -> None:
    """A command that is added or lost shows here."""
    assert {" ".join(words) for words in commands()} == {
        "",
        "pull",
        "push",
        "sync",
        "reconcile",
        "polling",
        "serve",
        "status",
        "doctor",
        "mapping",
        "mapping preview",
        "rejects",
        "rejects list",
        "rejects show",
        "rejects replay",
        "rejects dismiss",
        "conflicts",
        "conflicts list",
        "conflicts show",
        "conflicts resolve",
        "alerts",
        "alerts list",
        "alerts test",
        "history",
        "forget",
        "db",
        "db upgrade",
        "db status",
        "db copy",
        "simulate",
        "simulate generic",
        "simulate hubspot",
        "simulate salesforce",
        "simulate zoho",
        "demo",
        "dev",
        "up",
        "dagster",
        "dagster code-server",
        "dagster daemon",
        "dagster webserver",
    }


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_explains_itself(cli: Cli, words: tuple[str, ...]) -> None:
    """``--help`` ends well, says what the command is for, and explains every option."""
    answer = cli(*words, "--help")
    assert (answer.code, answer.err) == (0, "")
    usage, _, rest = answer.out.partition("\n\n")
    assert usage.startswith(" ".join(["Usage: crm-pipeline", *words]))
    assert rest.lstrip()[0].isupper()
    options = [line for line in answer.out.splitlines() if line.startswith("  --")]
    assert options
    assert not [line for line in options if line.split() == [line.strip()] and len(line) < 20]


def test_the_version_is_told(cli: Cli) -> None:
    """One line, the package's own."""
    assert cli("--version").out == f"{__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("rejects",),
        ("pul",),
        ("pull", "--sinze", "2025-01-01"),
        ("pull", "extra"),
        ("status", "--env-file"),
        ("rejects", "show"),
        ("rejects", "show", "one"),
        ("rejects", "replay"),
        ("rejects", "replay", "1", "--all"),
        ("rejects", "list", "--limit", "0"),
        ("rejects", "dismiss"),
        ("conflicts",),
        ("conflicts", "list", "--limit", "0"),
        ("conflicts", "show"),
        ("conflicts", "resolve", "--external"),
        ("conflicts", "resolve", "1"),
        ("conflicts", "resolve", "1", "--external", "--internal"),
        ("history",),
        ("history", "0811 1111111", "0811 2222222"),
        ("simulate", "generic", "--contacts", "-1"),
        ("simulate", "generic", "--port", "70000"),
        ("demo", "--contacts", "1"),
        ("dev", "--env-file", "other.env"),
    ],
)
def test_wrong_usage_ends_with_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    """Usage goes to standard error, nothing was done, and the exit code says whose mistake it was."""
    answer = cli(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert "Usage: crm-pipeline" in answer.err


@pytest.mark.parametrize(
    "typed,ordered",
    [
        ("pull --json", "--json pull"),
        ("--json pull", "--json pull"),
        (
            "rejects list --limit 5 --env-file x.env --debug",
            "--env-file x.env --debug rejects list --limit 5",
        ),
        ("status --env-file=x.env", "--env-file=x.env status"),
        ("rejects show -- --json", "rejects show -- --json"),
        ("status --env-file", "status --env-file"),
        ("pull --since 2025-01-01", "pull --since 2025-01-01"),
    ],
)
def test_global_options_may_stand_anywhere(typed: str, ordered: str) -> None:
    """People add ``--json`` at the end of the line; after ``--`` nothing is an option."""
    assert globals_first(typed.split()) == ordered.split()


def test_wrong_settings_are_told_line_by_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, one line for each mistake on standard error, no traceback; the same for machines."""
    monkeypatch.setenv("RATE_LIMIT", "lots")
    monkeypatch.setenv("EXTERNAL_CRM_API_KEY", f"{SECRET}\n")
    answer = cli("status", "--json")
    assert (answer.code, answer.json) == (1, {"error": answer.err.strip()})
    lines = answer.err.splitlines()
    assert [line.split()[1] for line in lines] == ["EXTERNAL_CRM_API_KEY", "RATE_LIMIT"]
    assert all(line.startswith("Settings: ") for line in lines)
    assert SECRET not in answer.err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``--debug`` the exception is not turned into a line."""
    monkeypatch.setenv("RATE_LIMIT", "lots")
    with pytest.raises(SettingsError):
        run(["status", "--debug"])


def test_another_env_file_is_read(cli: Cli, tmp_path: Path) -> None:
    """``--env-file`` takes the place of .env, wherever it stands; a missing one is an error."""
    (tmp_path / "other.env").write_text("RATE_LIMIT=7\n")
    assert cli("--json", "status", "--env-file", "other.env").json["settings"]["RATE_LIMIT"] == 7
    assert cli("status", "--env-file", "missing.env").code == 1


PRIVATE = "628123456789@c.us"
FAILURES: list[tuple[Exception, str]] = [
    (CommandError("There is no reject 7"), "There is no reject 7"),
    (SettingsError("A must be b", "C must be d"), "Settings: A must be b\nSettings: C must be d"),
    (BusyError("another run is working"), "Busy: another run is working"),
    (CrmUnavailableError("no answer from crm.example"), "CRM: no answer from crm.example"),
    (
        OperationalError(f"SELECT '{PRIVATE}'", {"id": PRIVATE}, sqlite3.OperationalError("disk is full")),
        "Database: disk is full",
    ),
    (
        IntegrityError("INSERT", {"id": PRIVATE}, sqlite3.IntegrityError(f"Key (id)=({PRIVATE})")),
        "Database: IntegrityError; run the same with --debug",
    ),
    (
        FileNotFoundError(2, "No such file or directory", "x.yaml"),
        "Failed: No such file or directory (x.yaml)",
    ),
    (KeyError(PRIVATE), "Unexpected KeyError; run the same with --debug"),
]


@pytest.mark.parametrize("error,expected", FAILURES, ids=[type(error).__name__ for error, _ in FAILURES])
def test_a_failure_is_told_without_personal_data(error: Exception, expected: str) -> None:
    """Our own errors speak for themselves; of a stranger's only what cannot quote a contact."""
    told = explain(error)
    assert told.startswith(expected)
    assert PRIVATE not in told


def test_help_loads_nothing_heavy() -> None:
    """What is imported before the command is known makes every call slow, --help first."""
    code = (
        "import sys, crm_pipeline.cli.main\n"
        "heavy = {'alembic', 'dagster', 'pandas', 'phonenumbers', 'pydantic', 'requests', 'rich',"
        " 'sqlalchemy', 'starlette', 'urllib3', 'uvicorn', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_serving_needs_no_migrations() -> None:
    """Alembic is a tenth of what the API imports, and every start imports it again."""
    code = "import sys, crm_pipeline.api.server, crm_pipeline.service; print('alembic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    """The installed command and ``python -m`` are the same: an answer on stdout, a failure on stderr."""
    command = [sys.executable, "-m", "crm_pipeline.cli.main"]
    done = subprocess.run(
        [*command, "status", "--json"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["enabled"] is False
    assert done.stderr == ""
    failed = subprocess.run([*command, "pull"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "Failed: cannot pull: EXTERNAL_CRM_ENABLED is false\n"


@pytest.mark.parametrize(
    "arguments, code",
    [(("pull",), 1), (("conflicts", "show", "99"), 1), (("pull", "--until", "soon"), 2), (("nonsense",), 2)],
)
def test_machines_are_told_of_failures(cli: Cli, arguments: tuple[str, ...], code: int) -> None:
    """With ``--json`` a failure is a document, too: settings, a missing thing, wrong usage."""
    answer = cli("--json", *arguments)
    assert (answer.code, list(answer.json)) == (code, ["error"])
    assert answer.json["error"]
    assert answer.err
