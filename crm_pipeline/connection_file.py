"""Reading the connection file: YAML in, checked ``Connection`` out, mistakes with file, line and key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError

from crm_pipeline.connection import Connection, ConnectorType

Key: TypeAlias = tuple[str | int, ...]
MAX_BYTES = 1024 * 1024
_PRESETS = Path(__file__).parent / "presets"
_VENDORS = frozenset(ConnectorType) - {ConnectorType.GENERIC}
_TAGS = ("map", "seq", "str", "int", "float", "bool", "null")
_NAMED = re.compile(r"([\w-]+(?:\.[\w-]+)*): (.*)", re.DOTALL)
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class ConnectionFileError(ValueError):
    """The connection file is wrong. One line for each mistake, never a value from it."""

    def __init__(self, problems: list[str]) -> None:
        """Keep the mistakes apart for callers that list them."""
        super().__init__("\n".join(problems))
        self.problems = problems


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars only: in 1.1 the region ``NO`` is false and ``12:30`` is 750."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def read_file(path: Path, environ: Mapping[str, str]) -> tuple[dict[str, Any], Source]:
    """Parse a connection file, with ``${NAME}`` taken from ``environ``.

    Raises:
        ConnectionFileError: unreadable, not YAML, or an unknown ``${NAME}``.
    """
    source = Source(str(path))
    try:
        content = path.read_bytes()
        if len(content) > MAX_BYTES:
            raise ConnectionFileError([f"{path}: larger than {MAX_BYTES} bytes"])
        loader = _Loader(content.decode("utf-8-sig"))
        root = loader.get_single_node()
        data = _Builder(loader, source, environ).value(root, ()) if root else {}
    except OSError as error:
        raise ConnectionFileError([f"{path}: cannot be read ({error.strerror})"]) from None
    except UnicodeDecodeError:
        raise ConnectionFileError([f"{path}: is not UTF-8 text"]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        told = f"{path}:{line}: not valid YAML ({_without_quotes(error)})"
        if any(b"${" in text for text in content.splitlines()[line - 1 : line]):
            told += "; inside braces, ${NAME} needs quotes"
        raise ConnectionFileError([told]) from None
    except (yaml.YAMLError, RecursionError):
        raise ConnectionFileError([f"{path}: not valid YAML"]) from None
    if not isinstance(data, dict):
        source.problems.append(source.say((), "must hold keys and values"))
    if source.problems:
        raise ConnectionFileError(source.problems)
    return data, source


def with_preset(data: dict[str, Any]) -> dict[str, Any]:
    """Put what a file says over what its vendor's preset says, section by section."""
    preset = _PRESETS / f"{data.get('type')}.yaml"
    if data.get("type") not in _VENDORS:
        return data
    said, _ = read_file(preset, {})
    return _over(said, data)


def _over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def validate(data: Mapping[str, Any], source: Source) -> Connection:
    """Make the ``Connection`` out of parsed (and overlaid) data.

    Raises:
        ConnectionFileError: unknown keys, missing keys, values of the wrong form.
    """
    try:
        return Connection.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False)
        raise ConnectionFileError([_problem(source, detail) for detail in details]) from None


class Source:
    """Where each key of the file stands."""

    def __init__(self, name: str) -> None:
        """Start with no keys known."""
        self.name = name
        self.lines: dict[Key, int] = {(): 1}
        self.problems: list[str] = []

    def nearest(self, key: Key) -> Key:
        """Return the longest part of the key that the file really has."""
        while key not in self.lines:
            key = key[:-1]
        return key

    def say(self, key: Key, what: str) -> str:
        """Phrase one mistake: file, line, dotted key, what is wrong."""
        line = self.lines[self.nearest(key)]
        dotted = ".".join(str(part) for part in key)
        return f"{self.name}:{line}: {dotted + ': ' if dotted else ''}{what}"


class _Builder:
    """Turns YAML nodes into plain values and remembers their lines."""

    def __init__(self, loader: _Loader, source: Source, environ: Mapping[str, str]) -> None:
        self._loader = loader
        self._source = source
        self._environ = environ
        self._seen: set[int] = set()

    def value(self, node: yaml.Node, key: Key) -> Any:
        self._source.lines.setdefault(key, node.start_mark.line + 1)
        if id(node) in self._seen:
            return self._mistake(key, node, "aliases (*name) are not allowed")
        self._seen.add(id(node))
        if node.tag.removeprefix("tag:yaml.org,2002:") not in _TAGS:
            return self._mistake(key, node, "YAML tags (!name) are not allowed")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*key, index)) for index, item in enumerate(node.value)]
        plain = self._loader.construct_object(node)
        return self._with_environment(plain, key, node) if isinstance(plain, str) else plain

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for name_node, value_node in node.value:
            if not isinstance(name_node, yaml.ScalarNode):
                self._mistake(key, name_node, "a key must be plain text")
                continue
            name = name_node.value
            if name in built:
                self._mistake((*key, name), name_node, "is given twice")
                continue
            self._source.lines[*key, name] = name_node.start_mark.line + 1
            built[name] = self.value(value_node, (*key, name))
        return built

    def _with_environment(self, text: str, key: Key, node: yaml.Node) -> str:
        """Replace ``${NAME}`` after parsing, so that no value can change the file's shape."""
        for name in _REFERENCE.findall(text):
            if not self._environ.get(name):
                self._mistake(key, node, f"the environment has no {name}")
        if "${" in _REFERENCE.sub("", text):
            self._mistake(key, node, "a value from the environment is written ${NAME}")
        return _REFERENCE.sub(lambda match: self._environ.get(match[1], ""), text)

    def _mistake(self, key: Key, node: yaml.Node, what: str) -> None:
        at = Source(self._source.name)
        at.lines[key] = node.start_mark.line + 1
        self._source.problems.append(at.say(key, what))


def _problem(source: Source, detail: Any) -> str:
    key, kind = tuple(detail["loc"]), detail["type"]
    if kind == "extra_forbidden":
        return source.say(key, "unknown key")
    if kind == "missing":
        return source.say(key, "is required")
    if kind != "value_error":
        return source.say(source.nearest(key), _in_words_of_yaml(detail["msg"]))
    text = str(detail["ctx"]["error"])
    found = _NAMED.fullmatch(text)
    if found is None:
        return source.say(source.nearest(key), text)
    named = tuple(found[1].split("."))  # a rule about a section names its key itself, from the top or not
    return source.say(named if named[: len(key)] == key else (*key, *named), found[2])


def _in_words_of_yaml(text: str) -> str:
    text = text.replace("valid tuple", "list").replace("valid dictionary", "mapping of keys to values")
    text = re.sub(r" or instance of \w+$", "", text)
    return text[:1].lower() + text[1:]


def _without_quotes(error: yaml.MarkedYAMLError) -> str:
    """Return YAML's own complaint without the piece of the file it quotes."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", "…", error.problem or error.context or "syntax")
