"""Answers read as JSON: bounded, checked, and with what is said inside them found by path."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import orjson

from crm_pipeline import jsonio
from crm_pipeline.connectors.base import CrmAnswerError, Json
from crm_pipeline.connectors.session import Answer

_MEDIA = re.compile(r"[a-z]+/[a-z0-9.+-]{1,60}")
_CONTAINERS: frozenset[type] = frozenset({dict, list})
_BAD_WORDS = frozenset({"error", "fail", "failed", "failure"})


def document(answer: Answer, max_depth: int) -> Json:
    """Decode an answer's body.

    One record with an odd character (a lone surrogate, a byte that is not UTF-8) does not
    cost its page: the character is kept as a surrogate, and that record is refused later.

    Raises:
        CrmAnswerError: not JSON, by its type or by its content, or nested too deeply.
    """
    if not answer.body.strip():
        raise CrmAnswerError(f"the answer is empty (status {answer.status})")
    media = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media and not media.endswith(("/json", "+json")):
        shown = media if _MEDIA.fullmatch(media) else "something else"
        hint = " (a login page?)" if media == "text/html" else ""
        raise CrmAnswerError(f"the answer is {shown}, not JSON{hint}")
    found = _decoded(answer.body)
    _check_depth(found, max_depth)
    return found


def _decoded(body: bytes) -> Json:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return jsonio.loads(body.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError):
        pass  # the error's text and its "doc" hold the body: raised below without it
    raise CrmAnswerError("the answer is not JSON, or only a part of it")


def _check_depth(found: Json, most: int) -> None:
    """Walk level by level: fast, and no recursion that a hostile answer could exhaust."""
    level: list[Any] = [[found]]
    for _ in range(most + 1):
        inside: Iterator[Collection[Any]] = (
            node.values() if node.__class__ is dict else node for node in level
        )
        # Most hold nothing that holds anything, which costs little to see.
        deep = (each for each in inside if not _CONTAINERS.isdisjoint(map(type, each)))
        level = [child for each in deep for child in each if child.__class__ in _CONTAINERS]
        if not level:
            return
    raise CrmAnswerError(f"the answer is nested deeper than {most} levels")


def dig(found: Json, path: str) -> Json:
    """Value at a dotted path, None where there is none. A key that holds dots itself wins."""
    if isinstance(found, dict):
        if path in found:
            return found[path]
        if "." not in path:
            return None
    for name in path.split("."):
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


def first(found: Json, paths: tuple[str, ...]) -> Json:
    """First value at one of the paths that is not None."""
    for path in paths:
        value = dig(found, path)
        if value is not None:
            return value
    return None


def nest(path: str | None, value: Json) -> Json:
    """Put a value under a dotted path; as it is without one. ``0`` makes a list of it."""
    for name in reversed(path.split(".") if path else ()):
        value = [value] if name == "0" else {name: value}
    return value


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Base with the changes in it, object by object; a list is replaced as a whole."""
    whole = dict(base)
    for name, value in changes.items():
        old = whole.get(name)
        whole[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return whole


def says_failure(found: Json) -> bool:
    """Tell whether a body with a status of success says that it failed."""
    if not isinstance(found, dict):
        return False
    if found.get("success") is False or found.get("ok") is False:
        return True
    if found.get("error") or found.get("errors"):
        return True
    word = found.get("status")
    told = "message" in found or "code" in found
    return told and isinstance(word, str) and word.lower() in _BAD_WORDS
