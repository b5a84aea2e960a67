"""Mutation check: no small change to the code that decides whose value counts goes unnoticed.

``mutate.py`` changes one place at a time, in a copy of the project under ``var/mutation``, and
runs the module's unit tests on it; with names, only those modules. A change that no test notices
has to be argued away in docs/how-it-is-proved.md, and what is argued there has to be true: the
exit code is 1 where the two differ. ``make mutation`` provides mutmut, whose operators these are.

Beyond mutmut's own runner, decorated functions, constants and the parts of regular expressions
are changed too, and each mutant meets all tests of its module in a process of its own: mutmut
picks those that called the function first, and here the laws share what was decided once.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import ndiff
from pathlib import Path
from typing import Any

import libcst as cst
import libcst.matchers as m
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path("docs/how-it-is-proved.md")
COPY = ROOT / "var" / "mutation" / "copy"
COPIED = ("crm_pipeline", "crm_pipeline_tests", "docs", "pyproject.toml")
TESTS = {
    "merge": ("test_merge.py", "test_merge_laws.py", "test_merge_page.py"),
    "identity": ("test_identity.py",),
    "rewriting": ("test_rewriting.py",),
    "noticing": ("test_noticing.py",),
    "selection": ("test_selection.py",),
}
PYTEST = "-m pytest -x -q --tb=no -p no:xdist -p no:cacheprovider --hypothesis-profile=repeatable"
NOTICED = (1, 2)
"""Exit codes of pytest: a test failed, or the module could not even be imported."""
UNCHANGED = (
    m.Annotation()
    | m.AnnAssign(annotation=m.Annotation(m.Name("TypeAlias")))
    | m.Decorator()
    | m.Expr(m.SimpleString())
    | m.Import()
    | m.ImportFrom()
)
"""What changes no value: types, decorators, docstrings, imports."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one change; ``before`` and ``after`` are the lines that differ."""

    before: str
    after: str
    code: str

    def __str__(self) -> str:
        """As the page lists it."""
        return f"`{self.before}` becomes `{self.after}`"


def mutants(code: str) -> Iterator[Mutant]:
    """Every change of a module that is still Python, once."""
    tree = cst.parse_module(code)
    known = {code}
    for node in _changeable(tree):
        for kind, operator in OPERATORS:
            for other in operator(node) if isinstance(node, kind) else ():
                changed = tree.deep_replace(node, other).code
                if changed not in known and _is_python(changed):
                    known.add(changed)
                    yield Mutant(*_difference(code, changed), changed)


def _changeable(node: Any) -> Iterator[Any]:
    if m.matches(node, UNCHANGED):
        return
    yield node
    for child in node.children:
        yield from _changeable(child)


def _is_python(code: str) -> bool:
    try:
        compile(code, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _difference(code: str, changed: str) -> tuple[str, str]:
    lines = list(ndiff(code.splitlines(), changed.splitlines()))
    gone, came = (" ".join(line[2:].strip() for line in lines if line[0] == sign) for sign in "-+")
    return gone, came


def _negated(node: Any) -> Iterator[Any]:
    """A condition the other way round."""
    test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    yield node.with_changes(test=cst.UnaryOperation(cst.Not(), test))


_PART = re.compile(r"\\u[0-9a-f]{4}|\\.|.")
_BOUND = re.compile(r"(?<=[{,])[0-9]+(?=[,}])")
_RANGE = re.compile(r"(\\u[0-9a-f]{4}|\w)-(\\u[0-9a-f]{4}|\w)")


def _other_patterns(node: Any) -> Iterator[Any]:
    """A regular expression without one of its parts, with another count, with a shorter range."""
    if not m.matches(node.func, m.Attribute(attr=m.Name("compile"))):
        return
    first, *others = node.args
    for pattern in _patterns(first.value.raw_value):
        literal = first.value.with_changes(value=f'r"{pattern}"')
        yield node.with_changes(args=[first.with_changes(value=literal), *others])


def _patterns(pattern: str) -> Iterator[str]:
    for part in _PART.finditer(pattern):
        yield _spliced(pattern, part.span(), "")
    for bound in _BOUND.finditer(pattern):
        for step in (-1, 1):
            yield _spliced(pattern, bound.span(), str(int(bound[0]) + step))
    for ends in _RANGE.finditer(pattern):
        for end, step in ((1, 1), (2, -1)):
            yield _spliced(pattern, ends.span(end), f"\\u{_code_point(ends[end]) + step:04x}")


def _spliced(text: str, span: tuple[int, int], new: str) -> str:
    return text[: span[0]] + new + text[span[1] :]


def _code_point(part: str) -> int:
    return int(part.removeprefix("\\u"), 16) if part.startswith("\\u") else ord(part)


OPERATORS: tuple[tuple[type, Callable[[Any], Iterable[Any]]], ...] = (
    *mutation_operators,
    (cst.If, _negated),
    (cst.Call, _other_patterns),
)


def copy_project() -> None:
    """Make the copy that is changed, without bytecode."""
    shutil.rmtree(COPY, ignore_errors=True)
    for name in COPIED:
        source, target = ROOT / name, COPY / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def check(module: str) -> tuple[int, list[Mutant]]:
    """Try every mutant of a module; how many there are, and those no test noticed."""
    path = COPY / "crm_pipeline" / "sync" / f"{module}.py"
    code = path.read_text(encoding="utf-8")
    path.write_text("raise SystemError\n", encoding="utf-8")
    if _passes(module):
        raise RuntimeError(f"the tests of {module} run on something else than the copy")
    path.write_text(code, encoding="utf-8")
    if not _passes(module):
        raise RuntimeError(f"the tests of {module} fail on the code as it is")
    every = list(mutants(code))
    survivors = []
    for mutant in every:
        path.write_text(mutant.code, encoding="utf-8")
        if _passes(module):
            survivors.append(mutant)
            print(f"  {mutant}", flush=True)
    path.write_text(code, encoding="utf-8")
    return len(every), survivors


def _passes(module: str) -> bool:
    tests = [f"crm_pipeline_tests/unit/{name}" for name in TESTS[module]]
    # No bytecode: two mutants of one size and one second would share it.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *PYTEST.split(), *tests]
    run = subprocess.run(command, cwd=COPY, env=environment, capture_output=True, text=True, check=False)
    if run.returncode not in (0, *NOTICED):
        raise RuntimeError(f"pytest did not run: {run.stdout}{run.stderr}")
    return run.returncode == 0


def argued(module: str) -> set[str]:
    """What the page says of a module's survivors, under the module's own heading."""
    page = (COPY / PAGE).read_text(encoding="utf-8")
    _, _, section = page.partition(f"\n### `crm_pipeline/sync/{module}.py`\n")
    return set(re.findall(r"^- (`.+` becomes `.+`)$", section.partition("\n#")[0], re.MULTILINE))


def main() -> int:
    """Copy, change, run; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TESTS)}; all when none")
    modules = parser.parse_args().modules or list(TESTS)
    if unknown := set(modules) - TESTS.keys():
        parser.error(f"there is no module {', '.join(sorted(unknown))}")
    copy_project()
    wrong: list[str] = []
    for module in modules:
        started = time.monotonic()
        tried, survivors = check(module)
        seconds = time.monotonic() - started
        print(f"{module}: {tried} mutants, {len(survivors)} survived, {seconds:.0f} s", flush=True)
        found = {str(mutant) for mutant in survivors}
        wrong += [f"{module}: nobody argued away {each}" for each in sorted(found - argued(module))]
        wrong += [f"{module}: a test notices {each}" for each in sorted(argued(module) - found)]
    print("\n".join(wrong or [f"Every survivor is argued away in {PAGE}."]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
