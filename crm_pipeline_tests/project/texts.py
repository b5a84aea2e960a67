"""Error texts as the code holds them, with … where a value goes."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from crm_pipeline_tests.project.pages import ROOT

PACKAGE = ROOT / "crm_pipeline"
ELSEWHERE = ("simulators",)
"""Parts whose texts the command line does not print."""
_RAISED = frozenset(
    {
        "BadParameter",
        "BudgetSpentError",
        "BusyError",
        "CommandError",
        "ConnectionFileError",
        "ConnectorSetupError",
        "CrmAnswerError",
        "AccessRefusedError",
        "CrmRefusedError",
        "CrmUnavailableError",
        "CutAnswerError",
        "DisabledError",
        "LeaseLostError",
        "LostAnswerError",
        "NotSentError",
        "OutdatedDatabaseError",
        "PushFailedError",
        "SettingsError",
        "TokenThrottledError",
        "UnknownConflictError",
        "UnknownContactError",
    }
)
"""Errors whose texts reach a person."""
_ABOUT_THE_FILE = frozenset({"say", "_mistake"})
"""How the connection file's mistakes are phrased."""


@cache
def error_texts() -> frozenset[str]:
    """Return the texts of errors that a command may print."""
    found: set[str] = set()
    for path, tree in _trees():
        calls = _RAISED | _ABOUT_THE_FILE if path.name == "connection_file.py" else _RAISED
        found.update(_raised_texts(tree, calls))
    return frozenset(" ".join(text.split()) for text in found if any(map(str.isalpha, text)) and " " in text)


@cache
def all_texts() -> frozenset[str]:
    """Return every text of the code, to look one up."""
    texts = (_text(node) for _, tree in _trees() for node in ast.walk(tree))
    return frozenset(" ".join(text.split()) for text in texts if text is not None)


def _trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] not in ELSEWHERE:
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def _raised_texts(tree: ast.Module, calls: frozenset[str]) -> Iterator[str]:
    shared = _named(tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            named = {**shared, **_named(node.body)}
            for inner in ast.walk(node):
                if isinstance(inner, ast.Call) and _name(inner.func) in calls:
                    yield from _of_arguments(inner, named)
        elif isinstance(node, ast.Tuple) and any(_name(part) in calls for part in node.elts):
            yield from filter(None, map(_text, node.elts))


def _named(body: list[ast.stmt]) -> dict[str, list[str]]:
    """Give the texts that names of a module or function stand for."""
    found: dict[str, list[str]] = defaultdict(list)
    for node in body:
        for inner in ast.walk(node) if not isinstance(node, ast.FunctionDef | ast.ClassDef) else ():
            if isinstance(inner, ast.Assign) and (text := _text(inner.value)) is not None:
                for target in inner.targets:
                    found[_name(target)].append(text)
    return found


def _of_arguments(call: ast.Call, named: dict[str, list[str]]) -> Iterator[str]:
    for argument in call.args:
        if isinstance(argument, ast.Name):
            yield from named.get(argument.id, ())
        elif isinstance(argument, ast.Constant | ast.JoinedStr):
            yield _text(argument) or ""
        elif isinstance(argument, ast.List | ast.Starred):
            yield from (text for node in ast.walk(argument) if (text := _text(node)) and "…" in text)


def _name(node: ast.AST) -> str:
    return str(getattr(node, "id", getattr(node, "attr", "")))


def _text(node: ast.AST) -> str | None:
    """Return a text constant; of one with values in it, the text around them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None
