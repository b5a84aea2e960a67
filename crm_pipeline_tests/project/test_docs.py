"""The documentation is complete and true: commands, settings, keys, Dagster's names, error texts, links."""

from __future__ import annotations

import re
import shlex
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import typer.main
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from crm_pipeline.cli.main import app, globals_first
from crm_pipeline.connection import BatchCall, Call, Connection, FieldRule, TimeFilter
from crm_pipeline.contact import FIELDS
from crm_pipeline.settings import Settings
from crm_pipeline.store.tables import metadata
from crm_pipeline_tests.project import pages
from crm_pipeline_tests.project.pages import DOCS, PAGES, ROOT, blocks, inline_code, prose, read, section
from crm_pipeline_tests.project.texts import all_texts, error_texts

COMMANDS_PAGE, CONNECT_PAGE = DOCS / "commands.md", DOCS / "connect-your-crm.md"
SETTINGS_PAGE, TROUBLE_PAGE = DOCS / "settings.md", DOCS / "troubleshooting.md"
SHARED = {Call: "<call>", BatchCall: "<batch>", TimeFilter: "<filter>", FieldRule: "<field>"}
"""Sections that stand in several places are described once, under a name of their own."""
BESIDE: dict[str, dict[str, Any]] = {
    "listing.<filter>": {"param": "since"},
    "writing.<call>": {"method": "POST", "path": "/x"},
    "writing.<batch>": {"path": "/x"},
    "writing.lookup": {"param": "phone"},
    "fields.<field>": {"type": "choice", "names": ["tier"], "choices": ["gold"]},
    "webhook.signature": {"scheme": "hmac"},
    "auth.oauth": {"grant": "client_credentials", "client_id": "app", "client_secret": "s3cret"},
}
"""What an example needs beside it to stand alone."""
PLACES = {"<filter>": "modified_since", "<call>": "create", "<batch>": "batch_create", "<field>": "tier"}
INSTEAD: dict[str, dict[str, Any]] = {
    "auth.oauth": {"kind": "oauth2"},
    "fields.<field>.parts": {"type": "text"},
    "fields.<field>.placeholder": {"type": "text", "names": ["tier"]},
}
"""What a single key needs beside it, in place of the former."""
AROUND: dict[str, dict[str, Any]] = {
    "writing.bulk_from": {"type": "salesforce"},
    "webhook.public_url": {"type": "zoho"},
}
"""What a single key needs at the top of the file."""
SIGNED_TIME = {"timestamp_header": {"signed": "{timestamp}.{body}"}}


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Give every command as it is typed."""
    if not hasattr(command, "commands"):
        yield " ".join(words), command
        return
    for name, inner in command.commands.items():
        yield from walk(inner, (*words, name))


COMMANDS: dict[str, Any] = dict(walk(typer.main.get_command(app)))


def options(command: Any) -> list[str]:
    """Return a command's own options as they are typed."""
    return [name for each in command.params if each.param_type_name == "option" for name in each.opts]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    """Each command has its section with each of its options, and no other; and a row in the README."""
    documented = {
        word.split()[0]
        for cells in pages.rows(section(COMMANDS_PAGE, f"`crm-pipeline {name}`"), 2)
        for word in inline_code(cells[0])[:1]
        if word.startswith("--")
    }
    assert documented == set(options(COMMANDS[name]))
    assert f"| `crm-pipeline {name}` |" in read(ROOT / "README.md")


def test_no_other_command_is_documented() -> None:
    """A command that is gone leaves the pages too; the options of all commands are explained."""
    headings = re.findall(r"^## `crm-pipeline (.*)`$", read(COMMANDS_PAGE), re.MULTILINE)
    assert sorted(headings) == sorted(COMMANDS)
    for name in options(typer.main.get_command(app)):
        assert f"`{name}" in section(COMMANDS_PAGE, "Commands")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_the_pages_can_be_typed(page: Path) -> None:
    """Each crm-pipeline line has a known command and known options, each make line a known target."""
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE))
    for block in blocks(page, "sh"):
        for line in block.text.splitlines():
            words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=.*", word)]
            if words[0] == "make":
                assert words[1] in targets, line
            elif words[0].removeprefix(".venv/bin/") == "crm-pipeline":
                assert_can_be_typed(words[1:])
            else:
                assert words[0] in {"curl", "ssh"}, line


def assert_can_be_typed(words: list[str]) -> None:
    """Hold a command line against the command it names."""
    root: Any = typer.main.get_command(app)
    command, rest = root, globals_first(words)
    taken = [word for word in rest if word.split("=")[0] in options(root)]
    rest = [word for word in rest if word not in taken]
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    assert {word.split("=")[0] for word in rest if word.startswith("--")} <= set(options(command)), words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_on_the_pages_exist(page: Path) -> None:
    """Variables, files, and keys of the connection file that a page names are real."""
    keys = {key for key, _, _ in connection_keys(Connection)}
    for word in inline_code(prose(page)):
        name = word.split("=")[0]
        if re.fullmatch(r"(EXTERNAL_CRM|DATABASE|RATE_LIMIT|API|CRM|WEBHOOK)_[A-Z_]+", name):
            assert name.lower() in Settings.model_fields, word
        if re.fullmatch(r"(crm_pipeline|crm_pipeline_tests|docs|tools)/[\w./-]*", word):
            assert (ROOT / word).exists(), word
        sections = "auth|records|listing|pagination|writing|limits|merge|deletes|select|fields|webhook"
        if re.fullmatch(rf"({sections})\.[\w.<>]+", word):
            assert word in keys, word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a page or a heading of ours resolves."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        linked = page if not name else (page.parent / name).resolve()
        assert linked.exists(), target
        assert not anchor or anchor in pages.anchors(linked), target


def test_every_page_is_listed_in_the_readme() -> None:
    """Nobody has to guess what pages there are."""
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", read(ROOT / "README.md")))
    assert linked == {page.name for page in DOCS.glob("*.md")}


def test_every_setting_is_documented() -> None:
    """Each variable has its row with default and accepted form, and a row in the README; no other has."""
    documented = {cells[0].strip("`"): cells for cells in pages.rows(read(SETTINGS_PAGE), 4)}
    assert sorted(documented) == sorted(name.upper() for name in Settings.model_fields)
    readme = dict(cells[:2] for cells in pages.rows(section(ROOT / "README.md", "Settings"), 3))
    for name, field in Settings.model_fields.items():
        _, default, accepts, _ = documented[name.upper()]
        shown = "" if field.default in (None, ()) else f"`{plain(field.default)}`"
        assert default == (shown or "not set"), name
        assert accepts == str(field.description).removeprefix("must be ").replace("must be ", ""), name
        assert readme.pop(f"`{name.upper()}`") == shown, name
    assert not readme


def plain(value: object) -> str:
    """Return a default as it is written in a .env file."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def connection_keys(
    model: type[BaseModel], prefix: str = ""
) -> Iterator[tuple[str, FieldInfo, type[BaseModel] | None]]:
    """Give every key of the connection file with its place, and the section it opens."""
    for name, field in model.model_fields.items():
        inner = section_of(field.annotation)
        key = f"{prefix}{name}"
        if inner is None or not is_plain_section(field):
            yield key, field, inner
        if inner in SHARED:
            place = key if inner is FieldRule else key.rpartition(".")[0]
            yield from connection_keys(inner, f"{place}.{SHARED[inner]}.")
        elif inner is not None:
            yield from connection_keys(inner, f"{key}.")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation holds, alone, optional, or by name."""
    if isinstance(annotation, type) and not get_origin(annotation):
        return annotation if issubclass(annotation, BaseModel) else None
    if get_origin(annotation) in {dict, types.UnionType}:
        return next(filter(None, map(section_of, get_args(annotation))), None)
    return None


def is_plain_section(field: FieldInfo) -> bool:
    """Tell whether a key only opens a section: it is always there, or holds fields by name."""
    if isinstance(field.default, BaseModel):
        return not isinstance(field.default, Call)
    return field.default_factory is dict


KEYS = {key: field for key, field, _ in connection_keys(Connection)}
KEY_ROWS = {cells[0].strip("`"): cells[1:] for cells in pages.rows(read(CONNECT_PAGE), 5)}


def test_every_key_of_the_connection_file_is_documented() -> None:
    """Each key has its row, and no other has; so has each choice of a key."""
    assert list(KEY_ROWS) == [key for key in KEY_ROWS if key in KEYS]
    assert sorted(KEY_ROWS) == sorted(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_defaults_of_the_connection_file_are_the_documented_ones(key: str) -> None:
    """What the file does not say is what the page says."""
    field, shown = KEYS[key], KEY_ROWS[key][1].strip("`")
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        assert shown == "required"
    elif default is None:
        assert shown == "none"
    else:
        assert yaml.safe_load(shown) == yaml.safe_load(yaml.safe_dump(as_data(default)))


def as_data(default: Any) -> Any:
    """Return a default as it would be written in the file."""
    if isinstance(default, BaseModel):
        return default.model_dump(mode="json", exclude_unset=True)
    return (
        list(default) if isinstance(default, tuple) else str(default) if isinstance(default, str) else default
    )


@pytest.mark.parametrize("key", KEYS)
def test_examples_of_keys_are_valid(key: str) -> None:
    """The example of each key is taken by the model, and is not its default."""
    value = yaml.safe_load(KEY_ROWS[key][2].strip("`"))
    place, _, name = key.rpartition(".")
    inner = {
        **INSTEAD.get(key, BESIDE.get(place, {})),
        **(SIGNED_TIME.get(name, {}) if "signature" in key else {}),
        name: value,
    }
    for part in reversed(place.split(".") if place else ()):
        inner = {PLACES.get(part, part): inner, **({"kind": "oauth2"} if part == "oauth" else {})}
    found: Any = Connection.model_validate({**AROUND.get(key, {}), **inner})
    if place == "" and name != "type":
        assert getattr(found, name) != KEYS[key].default


def test_every_field_of_a_contact_is_documented() -> None:
    """The README's table of contacts is the code's."""
    shown = [cells[:2] + cells[3:] for cells in pages.rows(section(ROOT / "README.md", "The contact"), 4)]
    assert shown == [
        [f"`{field.json_name}`", f"`{field.name}`", ", ".join(f"`{name}`" for name in field.external_names)]
        for field in FIELDS
    ]


def test_everything_in_dagster_is_documented() -> None:
    """Assets, jobs, schedules, sensors and checks are named on their page."""
    from crm_pipeline.definitions import defs  # noqa: PLC0415 - half a second, for one test
    from crm_pipeline.orchestration.watch import watch_job, watch_schedule  # noqa: PLC0415

    repository = defs.get_repository_def()
    names = {
        watch_job.name,  # these two are there for Zoho only
        watch_schedule.name,
        *(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()),
        *(job for job in repository.job_names if not job.startswith("__")),
        *(each.name for each in repository.schedule_defs),
        *(each.name for each in repository.sensor_defs),
        *(check.name for check in repository.asset_graph.asset_check_keys),
    }
    assert names <= set(inline_code(prose(DOCS / "backfills-and-schedules.md")))


def test_every_endpoint_is_documented() -> None:
    """The page on the HTTP API names each path with its methods, and no other."""
    from crm_pipeline.api.routes import ROUTES  # noqa: PLC0415 - as above

    shown = {
        word
        for cells in pages.rows(section(DOCS / "http-api.md", "Endpoints"), 2)
        for word in inline_code(cells[0])
    }
    assert shown == {
        f"{method} {route.path.replace(':path', '')}"
        for route in ROUTES
        for method in route.methods
        if method != "HEAD"
    }


def test_every_table_is_documented() -> None:
    """The page on architecture says who writes each table of the database."""
    shown = {cells[0].strip("`") for cells in pages.rows(section(DOCS / "architecture.md", "Tables"), 3)}
    assert shown == {*metadata.tables, "crm_pipeline_version"}


@pytest.mark.parametrize("text", sorted(error_texts()))
def test_every_error_text_is_explained(text: str) -> None:
    """What a command may print stands on the page on troubleshooting, word for word."""
    assert text in " ".join(read(TROUBLE_PAGE).split())


def test_explained_error_texts_are_real() -> None:
    """Every symptom on the page is a text of the code, or the beginning of a long one."""
    shown = [code for cells in pages.rows(read(TROUBLE_PAGE), 2) for code in inline_code(cells[0])]
    prefixes = ("Settings:", "CRM:", "Failed:", "Busy:", "Database:", "Unexpected")
    known = (*all_texts(), *prefixes)
    assert [code for code in shown if not any(text.startswith(code) for text in known)] == []
    assert len(shown) > len(error_texts())
