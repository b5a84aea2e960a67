"""HubSpot: contacts by list, search and batch (CRM API v3 and its dated versions)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import orjson

from crm_pipeline import instants
from crm_pipeline.connection import Connection
from crm_pipeline.connectors.ahead import read_ahead
from crm_pipeline.connectors.base import (
    CrmAnswerError,
    CrmField,
    Page,
    Record,
    Resume,
    ResumeError,
    Window,
    Write,
    WriteResult,
)
from crm_pipeline.connectors.budget import Lane, Usage
from crm_pipeline.connectors.hubspot_search import Search
from crm_pipeline.connectors.hubspot_writes import HubSpotWriter
from crm_pipeline.connectors.records import RecordReader
from crm_pipeline.connectors.session import Answer, Dialect, Session
from crm_pipeline.connectors.vendor import (
    Ending,
    body_of,
    chunks,
    field_paths,
    fields_in,
    list_in,
    options_in,
    origin_of,
    refusal_of,
    server_time,
)

BATCH = 100
"""Inputs of one batch call at the most."""
_LIST_PAGE = 100
_LONGEST_URL = 6_000
"""Characters of property names in a URL; longer ones are answered 414."""
_REFUSED = frozenset({400, 404, 409, 410, 414, 422})
_MULTI = 207
_PREFIX = "properties."
_MERGED = "hs_merged_object_ids"
_ALWAYS = ("hs_object_id", "lastmodifieddate", _MERGED)
_OBJECTS_PATH = re.compile(r"/crm/(v[0-9]+/objects|objects/[0-9-]+)/[\w-]+")


class HubSpotConnector:
    """One HubSpot account."""

    def __init__(
        self, connection: Connection, session: Session, clock: Callable[[], datetime] = instants.now
    ) -> None:
        """Take a session of that connection; ``close`` closes it."""
        self._connection, self._session, self._clock = connection, session, clock
        self._reader = RecordReader(connection)
        self._url = _contacts_url(connection)
        names = [path.removeprefix(_PREFIX) for path in field_paths(connection) if path.startswith(_PREFIX)]
        self._properties = list(dict.fromkeys([*names, *_ALWAYS]))
        self._unique = connection.writing.upsert_by
        self._writer = HubSpotWriter(session, self._reader, self._url, self._unique, BATCH)

    @property
    def calls(self) -> int:
        """HTTP requests sent so far, repeats included."""
        return self._session.calls

    @property
    def reads_by_modified(self) -> bool:
        """Whether the CRM itself restricts a listing to a window: by search."""
        return True

    @property
    def batch_size(self) -> int:
        """How many writes one call takes at the most."""
        return BATCH

    @property
    def bulk(self) -> None:
        """No jobs."""

    @read_ahead
    def pages(self, window: Window, resume: Resume | None = None) -> Iterator[Page]:
        """Read a window page by page. See ``Connector.pages``.

        Everything is read by the list, which lags behind nothing; a window by the search, and
        then the archive for what was deleted in it.
        """
        place, ending = resume or {"by": "list" if window == Window() else "search"}, Ending()
        while True:
            read_at = self._clock()
            answer, records, following = self._turn(window, place, resumed=place is resume)
            ending.turn(following, ())  # searches start anew inside ties, so that a page may come again
            yield Page(tuple(records), read_at, following, server_time(answer))
            if following is None:
                return
            place = following

    def read(self, external_ids: Sequence[str]) -> list[Record]:
        """Read records by id, a hundred in a call. See ``Connector.read``."""
        numbers = [each for each in dict.fromkeys(external_ids) if each.isascii() and each.isdecimal()]
        found = [record for some in chunks(numbers, BATCH) for record in self._batch_read(some)]
        return list({record.external_id: record for record in found}.values())

    def find(self, unique_value: str) -> list[Record] | None:
        """The record that holds the unique value, read past the search index. See ``Connector.find``."""
        return None if self._unique is None else self._batch_read([unique_value], self._unique)

    def write(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Write up to ``batch_size`` records. See ``Connector.write``."""
        return self._writer.write(writes)

    def schema(self) -> list[CrmField] | None:
        """The properties of contacts. See ``Connector.schema``."""
        answer = self._session.send("GET", _properties_url(self._url))
        return [_field(each) for each in fields_in(body_of(answer, self._connection), "results")]

    def refuses_writes(self) -> str | None:
        """Ask to change a contact that cannot exist. See ``Connector.refuses_writes``."""
        answer = self._session.send("PATCH", f"{self._url}/0", body=b'{"properties":{}}')
        return refusal_of(answer)

    def close(self) -> None:
        """Give connections back."""
        self._session.close()

    def _turn(
        self, window: Window, place: Resume, *, resumed: bool
    ) -> tuple[Answer, list[Record], Resume | None]:
        """Read the page at a place; give its records and the place of the next."""
        if place["by"] == "search":
            return self._searched(window, Search.at(place, window), resumed=resumed)
        archived = place["by"] == "archive"
        answer, found = self._listed(place.get("after"), archived=archived, resumed=resumed)
        records = [self._reader.record(item) for item in list_in(found, "results")]
        if archived:
            records = [record._replace(deleted=True) for record in records if _archived_in(record, window)]
        after = _after(found)
        return answer, records, None if after is None else {"by": place["by"], "after": after}

    def _searched(
        self, window: Window, search: Search, *, resumed: bool
    ) -> tuple[Answer, list[Record], Resume | None]:
        body = orjson.dumps(search.body(self._properties))
        answer = self._session.send("POST", f"{self._url}/search", body=body, reads=True)
        if resumed and answer.status in _REFUSED:
            raise ResumeError(f"the CRM refuses the place to go on from (status {answer.status})")
        found = body_of(answer, self._connection)
        records = [self._reader.record(item) for item in list_in(found, "results")]
        following = search.after(records, _after(found), found.get("total"))
        records += [loser for record in records for loser in _losers(record)]
        if following is not None:
            return answer, records, following.place()
        return answer, records, {"by": "archive"} if window.since is not None else None

    def _listed(self, after: str | None, *, archived: bool, resumed: bool) -> tuple[Answer, dict[str, Any]]:
        names = ",".join(self._properties)
        wide = len(names) > _LONGEST_URL
        params = {"limit": str(_LIST_PAGE), **({"after": after} if after else {})}
        params |= {"archived": "true"} if archived else {}
        params |= {} if wide else {"properties": names}
        answer = self._session.send("GET", self._url, params=params)
        if resumed and answer.status in _REFUSED:
            raise ResumeError(f"the CRM refuses the place to go on from (status {answer.status})")
        found = body_of(answer, self._connection)
        if wide and not archived:
            ids = [str(item.get("id")) for item in list_in(found, "results") if isinstance(item, dict)]
            found["results"] = [record.payload for record in self._batch_read(ids)]
        return answer, found

    def _batch_read(self, ids: Sequence[str], id_property: str | None = None) -> list[Record]:
        if not ids:
            return []
        body = {"properties": self._properties, "inputs": [{"id": each} for each in ids]}
        if id_property is not None:
            body["idProperty"] = id_property
        answer = self._session.send("POST", f"{self._url}/batch/read", body=orjson.dumps(body), reads=True)
        found = body_of(answer, self._connection)
        if answer.status == _MULTI and not all(_is_missing(error) for error in found.get("errors") or []):
            raise CrmAnswerError("a batch of records could not be read whole")
        return [self._reader.record(item) for item in list_in(found, "results")]


def _contacts_url(connection: Connection) -> str:
    """Where contacts are, whether the base URL is the API's root or the list itself."""
    path = urlsplit(connection.base_url).path
    found = _OBJECTS_PATH.search(path)
    return origin_of(connection.base_url) + (found[0] if found else connection.listing.path)


_KINDS = {
    "string": "text",
    "phone_number": "text",
    "number": "number",
    "date": "time",
    "datetime": "time",
    "enumeration": "choice",
    "bool": "boolean",
}


def _properties_url(contacts: str) -> str:
    """Where properties are described, of the same version."""
    base, _, version = contacts.rpartition("/")[0].replace("/objects", "").rpartition("/")
    dated = not version.startswith("v")
    return f"{base}/properties/{version}/contacts" if dated else f"{base}/{version}/properties/contacts"


def _field(told: dict[str, Any]) -> CrmField:
    meta = told.get("modificationMetadata")
    fixed = bool(told.get("calculated")) or (isinstance(meta, dict) and meta.get("readOnlyValue") is True)
    return CrmField(
        f"{_PREFIX}{told.get('name')}",
        _KINDS.get(str(told.get("type")), ""),
        not fixed,
        told.get("hasUniqueValue") is True,
        tuple(str(option.get("value")) for option in options_in(told, "options")),
    )


def _after(found: Mapping[str, Any]) -> str | None:
    """Where the next page starts: the last page has no ``paging``.

    Raises:
        CrmAnswerError: there is one, and it cannot be read: the list must not look like its whole.
    """
    paging = found.get("paging")
    following = paging.get("next") if isinstance(paging, dict) else paging
    if following is None:
        return None
    after = following.get("after") if isinstance(following, dict) else None
    if not isinstance(after, str | int) or isinstance(after, bool) or after == "":
        raise CrmAnswerError("the CRM says there is more, and gives no way to it")
    return str(after)


def _archived_in(record: Record, window: Window) -> bool:
    """Whether it was archived in the window; one without a time may have been."""
    text = record.payload.get("archivedAt") if isinstance(record.payload, dict) else None
    try:
        moment = datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return True
    before = window.until is None or moment < window.until
    return before and (window.since is None or moment >= window.since)


def _losers(record: Record) -> list[Record]:
    """Records that were merged into this one: they are nowhere listed as archived."""
    properties = record.payload.get("properties") if isinstance(record.payload, dict) else None
    text = properties.get(_MERGED) if isinstance(properties, dict) else None
    names = [name.strip() for name in str(text or "").split(";")]
    return [
        Record({"mergedInto": record.external_id}, name, record.modified_at, deleted=True)
        for name in names
        if name.isdecimal() and name != record.external_id
    ]


def _is_missing(error: Any) -> bool:
    return isinstance(error, dict) and error.get("category") == "OBJECT_NOT_FOUND"


# HubSpot's own words.

_LOCKED, _MOVING, _TOO_MANY = 423, 477, 429
_AWAY = frozenset({521, 523, 524})
_BURST_WAIT, _SEARCH_WAIT, _LOCK_WAIT = "10", "1", "2"
_SOON = timedelta(minutes=5)


def _read(answer: Answer) -> Answer:
    """Tell limits, locks and outages as HTTP does."""
    if answer.status in _AWAY:
        return replace(answer, status=503)
    if answer.status not in {_LOCKED, _MOVING, _TOO_MANY}:
        return answer
    wait = {_LOCKED: _LOCK_WAIT, _MOVING: str(int(_SOON.total_seconds()) * 2)}.get(answer.status)
    policy = _policy(answer.body)
    wait = wait or (_SEARCH_WAIT if policy == "SECONDLY" else _BURST_WAIT)
    told = answer.headers.get("Retry-After")
    headers = {**answer.headers, "Retry-After": told or wait}
    waits = int(headers["Retry-After"]) if headers["Retry-After"].isdecimal() else 0
    return replace(
        answer, status=_TOO_MANY, headers=headers, final=policy == "DAILY" or waits > _SOON.total_seconds()
    )


def _policy(body: bytes) -> str:
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    return str(told.get("policyName", "")) if isinstance(told, dict) else ""


def _usage(headers: Mapping[str, str]) -> Usage | None:
    """Read the rate limit headers; a search's answer has none."""
    names = ("X-HubSpot-RateLimit-Daily", "X-HubSpot-RateLimit-Daily-Remaining", "X-HubSpot-RateLimit-Max")
    limit, left, window = (
        int(headers[name]) if headers.get(name, "").isdecimal() else None for name in names
    )
    return None if limit is left is window is None else Usage(limit, left, window)


DIALECT = Dialect(
    _read,
    _usage,
    lambda base: f"{origin_of(base)}/oauth/v3/token",
    (("/search", Lane("search", 4, 1.0)),),
)
