"""The one command that measures everything."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_all_are_run_unless_some_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Each is a script that is there; what is none is refused by name."""
    module = runpy.run_path(str(BENCHMARKS / "all.py"))
    every = module["asked"]([])
    assert every == list(module["SHORT"])
    assert all((BENCHMARKS / f"{name}.py").is_file() for name in every)
    assert module["asked"](["push", "start"]) == ["push", "start"]
    with pytest.raises(SystemExit):
        module["asked"](["pussh"])
    assert "pussh" in capsys.readouterr().err
