"""What command line tests share: calling it in this process, and a CRM to talk to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from sqlalchemy import Engine, text

from crm_pipeline.cli.main import run
from crm_pipeline.simulators.generic import CONTACTS_PATH, GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline.store.engine import writing


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON document it must be."""
        return json.loads(self.out)


Cli: TypeAlias = Callable[..., Answer]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call the command line as a program would, with its arguments."""

    def call(*arguments: str) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(arguments)
        code = ended.value.code
        assert isinstance(code, int)
        return Answer(code, *capsys.readouterr())

    return call


Sql: TypeAlias = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def sql(engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Sql:
    """Plain SQL of another program, on the database that the commands use; the test runs on both kinds."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    def execute(statement: str, **values: object) -> list[tuple[Any, ...]]:
        with writing(engine) as tx:
            done = tx.execute(text(statement), values)
            return [tuple(row) for row in done] if done.returns_rows else []

    return execute


@pytest.fixture
def crm() -> Iterator[GenericCrm]:
    """A running CRM with 30 contacts, to which the .env of the test's working folder points."""
    crm = GenericCrm.seeded(30)
    with running(create_app(crm)) as url:
        Path(".env").write_text(
            "EXTERNAL_CRM_ENABLED=true\n"
            f"EXTERNAL_CRM_API_URL={url}{CONTACTS_PATH}\n"
            f"EXTERNAL_CRM_API_KEY={crm.options.api_key}\n"
        )
        yield crm
