"""The examples of the documentation do what the pages say: files load, snippets run, statements work."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sqlalchemy as sa

from crm_pipeline.api.bodies import MAX_BYTES
from crm_pipeline.connection import Connection
from crm_pipeline.connection_file import read_file, validate
from crm_pipeline.service import ExternalCrmService
from crm_pipeline.settings import load_settings
from crm_pipeline.simulators.generic import CONTACTS_PATH, CrmOptions, GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline.store.engine import writing
from crm_pipeline_tests.project.pages import DOCS, PAGES, ROOT, Block, blocks

CONTACTS = 50
SEVERAL_PAGES = 250
FILES = [
    pytest.param(block, id=f"{page.name}:{block.line}")
    for page in PAGES
    for block in blocks(page, "yaml")
    if not block.mark.startswith("run config")
]
CONFIGS = [block for page in PAGES for block in blocks(page, "yaml") if block.mark.startswith("run config")]
WORKED = [
    pytest.param(block, id=f"{page.name}:{block.line}")
    for page in PAGES
    for block in blocks(page, "yaml")
    if block.mark.startswith("simulator")
]
STATEMENTS = [
    pytest.param(block, id=f"{page.name}:{block.line}") for page in PAGES for block in blocks(page, "sql")
]
SNIPPETS = [DOCS / "customise-in-python.md", DOCS / "backfills-and-schedules.md", DOCS / "operations.md"]
"""Pages with Python, beside the one that has a test of its own."""


def connect(crm: GenericCrm, base: str, *variables: str) -> None:
    """Write the .env of somebody who uses this CRM."""
    lines = (
        "EXTERNAL_CRM_ENABLED=true",
        f"EXTERNAL_CRM_API_URL={base}",
        f"EXTERNAL_CRM_API_KEY={crm.options.api_key}",
        *variables,
    )
    Path(".env").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def crm() -> Iterator[GenericCrm]:
    """A CRM that the .env of the working folder names."""
    crm = GenericCrm.seeded(CONTACTS)
    with running(create_app(crm)) as url:
        connect(crm, url + CONTACTS_PATH)
        yield crm


@pytest.mark.parametrize("block", FILES)
def test_connection_files_load(block: Block, tmp_path: Path) -> None:
    """Every piece of a connection file is one that the loader takes."""
    path = tmp_path / "connection.yaml"
    path.write_text(block.text, encoding="utf-8")
    environment = dict.fromkeys(re.findall(r"\$\{(\w+)\}", block.text), "from-the-environment")
    data, source = read_file(path, environment)
    assert validate(data, source).model_fields_set


def test_the_schema_is_that_of_the_model() -> None:
    """Editors check what the loader checks; ``tools/schema.py`` writes it anew."""
    shown = json.loads((DOCS / "connection.schema.json").read_text(encoding="utf-8"))
    assert shown == Connection.model_json_schema()


@pytest.mark.parametrize(
    "preset", sorted((ROOT / "crm_pipeline" / "presets").glob("*.yaml")), ids=lambda p: p.stem
)
def test_presets_fit_the_schema(preset: Path) -> None:
    """A preset is a file like any other."""
    data, _ = read_file(preset, {})
    jsonschema.validate(data, Connection.model_json_schema())


@pytest.mark.parametrize("block", WORKED)
def test_worked_examples_sync_both_ways(block: Block) -> None:
    """With the file on the page: all is read, an edit and a new contact go out, and then it is quiet."""
    said: dict[str, Any] = dict(word.split("=") for word in block.mark.split()[1:])
    base = said.pop("base", CONTACTS_PATH)
    crm = GenericCrm.seeded(SEVERAL_PAGES, options=CrmOptions(**said))
    with running(create_app(crm)) as url:
        Path("connection.yaml").write_text(block.text, encoding="utf-8")
        connect(crm, url + base, "EXTERNAL_CRM_CONFIG=connection.yaml")
        with ExternalCrmService() as service:
            first = service.sync()
            assert first[0].pages > 1
            assert [report.counts.created for report in first] == [SEVERAL_PAGES, SEVERAL_PAGES, 0]
            with writing(service.engine) as tx:
                key = tx.execute(sa.text("SELECT min(id) FROM contacts")).scalar_one()
                tx.execute(sa.text("UPDATE contacts SET capacity = 4321 WHERE id = :id"), {"id": key})
                tx.execute(sa.text("INSERT INTO contacts (id) VALUES ('6281299990000@c.us')"))
            pushed = service.push().counts
            assert (pushed.created, pushed.updated, pushed.seen) == (1, 1, 2)
            again = service.sync()
    assert [report.counts.changed for report in again] == [0, 0, 0]
    assert [each["phone"] for each in crm.records.values() if each.get("capacity") == 4321] == [key]
    assert len(crm.records) == SEVERAL_PAGES + 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_json_on_the_pages_is_json(page: Path) -> None:
    """Answers shown are such as a program could read."""
    assert all(json.loads(block.text) for block in blocks(page, "json"))


@pytest.mark.parametrize("block", CONFIGS, ids=lambda block: block.mark)
def test_run_configs_fit_their_jobs(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster takes the configuration that a page tells to paste into its launchpad."""
    for name in ("DATABASE_URL", "EXTERNAL_CRM_API_KEY"):  # set while another test loaded the definitions
        monkeypatch.setenv(name, "sqlite:///unused.db")
    import dagster as dg  # noqa: PLC0415 - half a second, for one test
    import yaml  # noqa: PLC0415 - as above

    from crm_pipeline.definitions import defs  # noqa: PLC0415 - as above

    job = defs.resolve_job_def(block.mark.removeprefix("run config: "))
    assert dg.validate_run_config(job, yaml.safe_load(block.text))


@pytest.mark.parametrize("page", SNIPPETS, ids=lambda page: page.name)
def test_python_on_the_pages_runs(
    page: Path, crm: GenericCrm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Snippets, one after the other in a folder with a .env, print what the page shows."""
    assert len(crm.records) == CONTACTS
    with ExternalCrmService() as service:  # operations.md backs up a database that is there
        assert service.get_status()["contacts"] == 0
    monkeypatch.syspath_prepend(tmp_path)
    known: dict[str, Any] = {"__name__": "page"}
    waiting = ""
    for block in blocks(page):
        if block.language == "python" and block.mark.startswith("file: "):
            write_module(block)
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(block.text, known)  # noqa: S102 - running the page is the test
            waiting = output.getvalue()
        elif block.language == "text" and waiting:
            assert block.text == waiting
            waiting = ""
    assert not waiting, "the page does not show what its last snippet prints"


def write_module(block: Block) -> None:
    """Put a page's module where the page says, and use it with a fresh database."""
    name = block.mark.removeprefix("file: ")
    Path(name).write_text(block.text, encoding="utf-8")
    sys.modules.pop(Path(name).stem, None)
    classes = re.findall(r"^class (\w+)\(ExternalCrmService\)", block.text, re.MULTILINE)
    with Path(".env").open("a", encoding="utf-8") as env:
        env.write(f"EXTERNAL_CRM_SERVICE={Path(name).stem}:{classes[0]}\nDATABASE_URL=sqlite:///hooked.db\n")


@pytest.mark.parametrize("block", STATEMENTS)
def test_statements_work_on_both_databases(block: Block, engine: sa.Engine) -> None:
    """Each SQL statement works on the databases that its page says."""
    assert block.mark.split()[0] == "sql"
    if engine.dialect.name in (block.mark.split()[1:] or ["sqlite", "postgresql"]):
        with writing(engine) as tx:
            tx.execute(
                sa.text("INSERT INTO contacts (id) VALUES ('6281000000001@c.us'), ('6281000000002@c.us')")
            )
            done = tx.execute(sa.text(block.text.replace(":", r"\:")))
            assert done.returns_rows or done.rowcount == 1


def test_upsert_and_json_reach_the_crm(crm: GenericCrm, engine: sa.Engine) -> None:
    """Statements of the page on other programs, run between two syncs, travel as it says."""
    fields = "fields:\n  vip: {type: boolean, names: vip}\n"
    Path("connection.yaml").write_text(fields, encoding="utf-8")
    settings = load_settings(external_crm_config=Path("connection.yaml"))
    kind = engine.dialect.name
    with ExternalCrmService(engine, settings=settings) as service:
        service.sync()
        with writing(engine) as tx:
            for block in blocks(DOCS / "other-programs.md", "sql"):
                if kind in (block.mark.split()[1:] or [kind]):
                    tx.execute(sa.text(block.text.replace(":", r"\:")))
        pushed = service.push().counts
    by_phone = {each["phone"]: each for each in crm.records.values()}
    assert pushed.seen == pushed.updated == (3 if kind == "sqlite" else 2)
    assert by_phone["6281000000005@c.us"]["name"] == "Bagas Tirtabayuna"
    assert by_phone["6281000000002@c.us"]["vip"] is True
    if kind == "sqlite":
        assert by_phone["6281000000001@c.us"]["meeting_date"] == "2026-12-24T09:00:00Z"


def test_the_simulators_calls_work(crm: GenericCrm) -> None:
    """The bodies that the page on commands gives to curl change a record, and delete one."""
    import requests  # noqa: PLC0415 - one test talks to the simulator itself

    url = load_settings().connection.base_url.removesuffix(CONTACTS_PATH)
    lines = [line for block in blocks(DOCS / "commands.md", "sh") for line in block.text.splitlines()]
    sent = [shlex.split(line) for line in lines if line.startswith("curl -X POST")]
    for words in sent:
        path = words[3].partition(":8808")[2]
        assert requests.post(url + path, data=words[words.index("-d") + 1], timeout=5).ok
    assert [json.loads(words[-1])["id"] for words in sent] == ["100001", "100002"]
    assert crm.records["100001"]["notes"] == "VIP"
    assert "100002" not in crm.records


def test_the_proxies_take_what_the_api_takes_and_log_nobody() -> None:
    """Bodies up to the same bound; no address as it was sent in the log."""
    page = (DOCS / "reverse-proxy.md").read_text(encoding="utf-8")
    assert MAX_BYTES == 1024 * 1024
    assert re.findall(r"(?:client_max_body_size|max_size) (.*)", page) == ["1m;", "1MiB"]
    (logged,) = re.findall("log_format .*", page)
    assert not re.search(r"\$(request|request_uri|uri|args)\b", logged)
    ((path, told),) = re.findall(r"~(\S+) +(\S+);", page)
    assert re.match(path, "/api/external/push/6281000000001@c.us")
    assert told == "/api/external/push/..."
