"""Paths: where a field's value stands in a CRM's record, read and written.

``name``, ``name.first``, ``phones.0.number`` and ``phones[type=work].number``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, Final

MISSING: Final = object()
"""Nothing is said there; null is something."""
_SELECTOR = re.compile(r"\[([^\[\]=]+)=([^\[\]]+)\]")
_STEPS = re.compile(rf"[^.\[\]]+(?:{_SELECTOR.pattern})?(?:\.[^.\[\]]+(?:{_SELECTOR.pattern})?)*")
_STEP = re.compile(r"\[[^\[\]]+\]|[^.\[\]]+")


def needs_walk(paths: Iterable[str]) -> bool:
    """Tell whether any of them is more than a key."""
    return any("." in path or "[" in path for path in paths)


def get(document: Any, path: str) -> Any:
    """Value at a dotted path; a key that itself holds the dots comes first."""
    if isinstance(document, dict) and path in document:
        return document[path]
    here = document
    for step in _steps(path):
        if isinstance(here, dict):
            here = here.get(step, MISSING)
        elif isinstance(here, list) and (chosen := _chosen(step)):
            place = _place(here, *chosen)
            if place is None:
                return None  # the list is there, and says that there is none
            here = here[place]
        elif isinstance(here, list) and _is_index(step):
            here = here[int(step)] if int(step) < len(here) else MISSING
        else:
            return MISSING
        if here is MISSING:
            return MISSING
    return here


@cache
def _steps(path: str) -> tuple[str, ...]:
    """Keys, indexes and selectors of a path. Brackets that select nothing are part of a key."""
    return tuple(_STEP.findall(path) if _STEPS.fullmatch(path) else path.split("."))


def _chosen(step: str) -> tuple[str, str] | None:
    """Key and text by which a selector chooses an object of a list; None for any other step."""
    found = _SELECTOR.fullmatch(step)
    return (found[1], found[2]) if found else None


def _place(items: list[Any], key: str, text: str) -> int | None:
    """Index of the first object that holds the text under the key."""
    return next(
        (place for place, item in enumerate(items) if isinstance(item, dict) and item.get(key) == text), None
    )


def held(record: Mapping[str, Any], path: str) -> tuple[bool, Any]:
    """Whether a record mentions a path, and what stands there."""
    found = get(record, path)
    return found is not MISSING, None if found is MISSING else found


def put(document: dict[str, Any], path: str, value: Any, known: Mapping[str, Any] | None) -> bool:
    """Put a value at a dotted path, making objects and lists on the way.

    Written as the record is ``known``: a key that itself holds the dots stays one key, and
    a list goes out with all it held, because CRMs replace lists as a whole.

    Returns:
        Whether there was a way: no other value stands where the path leads.
    """
    steps = (path,) if known is not None and path in known else _steps(path)
    here: Any = document
    there: Any = known
    for step, following in pairwise(steps):
        key, inner = _inside(here, step)
        there = get(there, step)
        if key is None:
            return False
        if isinstance(inner, dict | list) and inner:
            here = inner
        elif inner in (None, {}, []):
            here[key] = _container(following, there)
            here = here[key]
        else:
            return False
    key, inner = _inside(here, steps[-1])
    if key is None or (isinstance(inner, dict | list) and inner):
        return False
    here[key] = value
    return True


def _inside(here: Any, step: str) -> tuple[Any, Any]:
    """Where a step leads in an object or a list, and what is there; None where it leads nowhere."""
    if not isinstance(here, list):
        return step, here.get(step)
    place = _room(here, step)
    return place, None if place is None else here[place]


def _room(items: list[Any], step: str) -> int | None:
    """The index that a step leads to, which is made where it is not there; None where it leads to none."""
    if chosen := _chosen(step):
        place = _place(items, *chosen)
        if place is None:
            items.append(dict([chosen]))
        return len(items) - 1 if place is None else place
    if not _is_index(step):
        return None
    items.extend({} for _ in range(int(step) + 1 - len(items)))
    return int(step)


def _container(following: str, known: Any) -> Any:
    """What a path goes on in."""
    if isinstance(known, list):
        return copy.deepcopy(known)
    listed = _is_index(following) or _chosen(following) is not None
    return [] if listed and not isinstance(known, dict) else {}


def _is_index(step: str) -> bool:
    return step.isascii() and step.isdigit()
