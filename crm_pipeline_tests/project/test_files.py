"""The project's own files: lock files, example settings, workspace, package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from crm_pipeline.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")


@pytest.fixture
def project_copy(tmp_path: Path) -> Path:
    """Return a folder with a space in its name that holds what the lock check reads."""
    copy = tmp_path / "a copy"
    (copy / "tools").mkdir(parents=True)
    for name in ("pyproject.toml", "tools/lock.py", *LOCKS):
        shutil.copyfile(ROOT / name, copy / name)
    return copy


def check_locks(project: Path) -> subprocess.CompletedProcess[str]:
    """Run the lock check of a project."""
    command = [sys.executable, str(project / "tools" / "lock.py"), "--check"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", LOCKS)
def test_locks_hold_versions_and_hashes_only(name: str) -> None:
    """A lock file pins every package with hashes and names no index, no link and no path."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE)
    pin = r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==[^ \n]+( ; [^\n\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    assert re.sub(pin, "", text) == ""
    assert len(re.findall(pin, text)) > 80


def test_both_locks_agree() -> None:
    """The tests run against the very versions that are installed without the development tools."""
    runtime, development = (
        set(re.findall(r"^[a-z0-9].*==[^ \n]+", (ROOT / name).read_text(), re.MULTILINE)) for name in LOCKS
    )
    assert runtime < development


def test_locks_belong_to_the_declared_requirements(project_copy: Path) -> None:
    """Locks resolved from the requirements as declared pass the check."""
    assert check_locks(project_copy).returncode == 0


@pytest.mark.parametrize(
    "old, new", [('"orjson>=3.10', '"orjson>=3.11'), ('"pytest>=', '"pytest!=0,>='), ('>=3.11"', '>=3.12"')]
)
def test_changed_requirements_make_the_locks_stale(project_copy: Path, old: str, new: str) -> None:
    """A changed runtime or development requirement, or Python version, fails the check and names the cure."""
    pyproject = project_copy / "pyproject.toml"
    assert old in pyproject.read_text()
    pyproject.write_text(pyproject.read_text().replace(old, new))
    result = check_locks(project_copy)
    assert result.returncode == 1
    assert "requirements-dev.lock" in result.stdout
    assert "make lock" in result.stdout


def test_example_settings_name_every_variable() -> None:
    """``.env.example`` has every variable once, and no other."""
    names = re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert sorted(names) == sorted(name.upper() for name in Settings.model_fields)


def test_example_settings_are_the_defaults() -> None:
    """A copied, unedited ``.env.example`` means what having none means."""
    assert load_settings(ROOT / ".env.example").model_dump() == load_settings().model_dump()


def test_workspace_outranks_nothing_and_nothing_outranks_it() -> None:
    """One code location with a fixed name; no table in pyproject.toml hides it from Dagster."""
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    location = {"module_name": "crm_pipeline.definitions", "location_name": "crm_pipeline"}
    assert workspace == {"load_from": [{"python_module": location}]}
    assert {"dagster", "dg"}.isdisjoint(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"])


def test_importing_the_package_is_cheap() -> None:
    """``import crm_pipeline`` loads nothing heavy; the service comes when it is asked for."""
    heavy = {"alembic", "dagster", "pandas", "phonenumbers", "pydantic", "requests", "rich", "sqlalchemy"}
    code = f"import sys, crm_pipeline; print(sorted({heavy!r} & set(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout == "[]\n"


def test_package_offers_the_service() -> None:
    """``from crm_pipeline import ExternalCrmService`` works, and a name it has not is an import error."""
    import crm_pipeline  # noqa: PLC0415 - the attribute is what is tested
    from crm_pipeline.service import ExternalCrmService  # noqa: PLC0415

    assert crm_pipeline.ExternalCrmService is ExternalCrmService
    assert not hasattr(crm_pipeline, "no_such_name")
