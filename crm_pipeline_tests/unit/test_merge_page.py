"""The page "How a field gets its value": its tables and its examples are what the code does."""

from __future__ import annotations

import contextlib
import io
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from crm_pipeline.connection import Direction, Merge, Policy
from crm_pipeline.sync.merge import FieldRules, Verdict
from crm_pipeline_tests.unit.merge_rules import NEWEST, ONE_WAY, RULES

PAGE = Path(__file__).parents[2] / "docs" / "how-a-field-gets-its-value.md"


@pytest.fixture(scope="module")
def page() -> str:
    """The page's text."""
    return PAGE.read_text(encoding="utf-8")


def rows(page: str, first_header: str) -> list[str]:
    """The rows of the table whose header begins so."""
    _, _, table = page.partition(f"\n| {first_header} |")
    return [line for line in table.split("\n\n")[0].splitlines()[2:] if line]


def test_the_table_has_one_row_for_each_verdict(page: str) -> None:
    """The page's rules are the tested rules, word for word, and name every verdict once."""
    assert rows(page, "Verdict") == [rule.row() for rule in RULES]
    assert [rule.verdict for rule in RULES] == list(Verdict)


def test_the_table_of_directions_is_the_tested_one(page: str) -> None:
    """What becomes of an edit on either side of a one-way field."""
    assert rows(page, "Direction") == [case.row() for case in ONE_WAY]
    assert all(f"`{direction}`" in page for direction in Direction)


def test_the_policies_and_their_defaults_are_named(page: str) -> None:
    """Each policy has its row; the defaults are those of the connection file."""
    assert [row.split("`")[1] for row in rows(page, "Policy")] == [
        Policy.NEWEST,
        Policy.EXTERNAL,
        Policy.INTERNAL,
        Policy.MANUAL,
    ]
    assert rows(page, "Of the two edits") == [f"| {case} | {winner} |" for case, _, winner in NEWEST]
    merge = Merge()
    tolerance = timedelta(seconds=merge.clock_tolerance_seconds)
    assert FieldRules() == FieldRules(Direction.BOTH, merge.policy, merge.tie, tolerance)
    assert merge.policy is Policy.NEWEST
    assert f"`merge.clock_tolerance_seconds` ({merge.clock_tolerance_seconds})" in page
    assert f"`merge.tie` (`{merge.tie}`)" in page


def test_the_examples_print_what_the_page_says(page: str) -> None:
    """A reader who runs the snippets one after the other sees the results shown."""
    known: dict[str, Any] = {}
    printed = ""
    examples = 0
    for language, text in re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL):
        if language == "python":
            assert not printed, "the snippet before prints something the page does not show"
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(text, known)  # noqa: S102 - running the page is the test
            printed = output.getvalue()
        else:
            assert (language, text) == ("text", printed)
            printed = ""
            examples += 1
    assert examples == 3
