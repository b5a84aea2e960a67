"""What the vendors' connectors have in common: bodies of good answers, times, names of fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlsplit

from crm_pipeline import jsonio
from crm_pipeline.connection import Connection, FieldRule
from crm_pipeline.connectors.base import CrmAnswerError, CrmUnavailableError, Record, Resume
from crm_pipeline.connectors.documents import document
from crm_pipeline.connectors.session import Answer, problem_of
from crm_pipeline.contact import BUILT_IN

_T = TypeVar("_T")


def body_of(answer: Answer, connection: Connection) -> dict[str, Any]:
    """The object that a good answer holds.

    Raises:
        ConnectorError: the answer is not good, or holds none.
    """
    problem = problem_of(answer)
    if problem is not None:
        raise problem
    found = document(answer, connection.limits.max_json_depth)
    if not isinstance(found, dict):
        raise CrmAnswerError("the answer is no JSON object")
    return found


class Ending:
    """Proof that a walk ends: no place and no page comes twice. Of pages passed it keeps only numbers."""

    def __init__(self) -> None:
        self._places: set[int] = set()
        self._pages: set[int] = set()

    def turn(self, place: Resume | None, records: Sequence[Record]) -> None:
        """Take note of a page, and of the place of the next.

        Raises:
            CrmAnswerError: the listing goes round in circles.
        """
        page = hash(tuple((record.external_id, record.modified_at) for record in records))
        if records and page in self._pages:
            raise CrmAnswerError("the CRM sent the same page twice: the listing would never end")
        self._pages.add(page)
        if place is None:
            return
        if not all(jsonio.storable(each) for each in place.values() if isinstance(each, str)):
            raise CrmAnswerError("the place of the next page is no text that can be kept")
        told = hash(jsonio.dumps(place))
        if told in self._places:
            raise CrmAnswerError("the CRM leads back to a page already read: the listing would never end")
        self._places.add(told)


def refusal_of(answer: Answer) -> str:
    """Why an answer refuses us, whatever it says of the content; empty where it does not.

    Raises:
        CrmUnavailableError: it says nothing, for now.
    """
    problem = problem_of(answer)
    if isinstance(problem, CrmUnavailableError):
        raise problem
    return str(problem) if answer.status in {401, 403} else ""


def list_in(found: dict[str, Any], key: str) -> list[Any]:
    """The list that an answer holds under a key.

    Raises:
        CrmAnswerError: there is none; an outage must not look like no records.
    """
    items = found.get(key)
    if not isinstance(items, list):
        raise CrmAnswerError(f"the answer holds no list of {key}")
    return items


def fields_in(found: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The descriptions of fields that an answer holds; what is no description is passed over."""
    return [item for item in list_in(found, key) if isinstance(item, dict)]


def options_in(told: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """What a field's description offers to choose from."""
    options = told.get(key)
    return [each for each in options if isinstance(each, dict)] if isinstance(options, list) else []


def server_time(answer: Answer) -> datetime | None:
    """The CRM's clock, from the ``Date`` header."""
    try:
        moment = parsedate_to_datetime(answer.headers["Date"])
    except (KeyError, ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def field_paths(connection: Connection) -> list[str]:
    """Every place the mapping reads or writes, each once, in order."""
    rules = {name: connection.fields.get(name, FieldRule()) for name in [*BUILT_IN, *connection.fields]}
    paths: list[str] = []
    for name, rule in rules.items():
        usual = BUILT_IN[name].external_names if name in BUILT_IN and not rule.parts else ()
        paths += [*(rule.names or usual), *(rule.parts or ()), *([rule.write] if rule.write else [])]
    return list(dict.fromkeys(paths))


def chunks(items: Sequence[_T], size: int) -> Iterator[list[_T]]:
    """Items in portions."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
