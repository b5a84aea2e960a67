"""The many ways REST CRMs wrap a listing and lead from one page to the next.

| style         | asks for the next page with         | finds it in                     |
|---------------|-------------------------------------|---------------------------------|
| page          | ``?page=2`` (from 1)                | page, total_pages               |
| offset        | ``?offset=100``                     | offset, total                   |
| cursor        | ``?cursor=…``                       | ``Envelope.cursor`` in the body |
| next_link     | the link itself                     | ``Envelope.next`` in the body   |
| link_header   | the link itself                     | ``Link: <…>; rel="next"``       |
| header_cursor | ``?cursor=…``                       | ``X-Next-Cursor``               |
| none          | nothing: everything is in one page  |                                 |

The page size is ``per_page``, ``limit`` or ``page_size``, whichever is given.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import orjson

from crm_pipeline.simulators.contacts import iso
from crm_pipeline.simulators.crm import RefusedError
from crm_pipeline.simulators.options import ENVELOPES, CrmOptions, check_listing
from crm_pipeline.simulators.shelf import Row, Selection

CURSOR_HEADER = "X-Next-Cursor"
SIZE_PARAMS = ("per_page", "limit", "page_size")

_EPOCH_MS = 100_000_000_000
"""A larger number of seconds would lie after the year 5000: it is milliseconds."""


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A listing as asked for, with the CRM's own habits where nothing is asked."""

    style: str
    envelope: str
    since: str | None
    before: str | None
    size: int
    page: int = 1
    offset: int = 0
    after: tuple[Any, ...] | None = None
    """Key of the last record already seen, from a cursor."""

    def cursor(self, last: tuple[Any, ...] | None) -> str:
        """Opaque text for the page after ``last``; it carries the filter with it."""
        raw = orjson.dumps([self.since, self.before, last])
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class PageOfRows:
    """What one listing answers, before it is JSON."""

    rows: list[Row]
    facts: dict[str, Any]
    """Paging facts by dotted path in the body."""
    next_cursor: str | None
    """None on the last page, and in styles that count."""


def parse_query(params: Mapping[str, str], options: CrmOptions) -> ListQuery:
    """Read a listing's query string.

    Raises:
        RefusedError: 400, a parameter cannot be read or a style does not fit its envelope.
    """
    style, envelope = params.get("pagination", options.pagination), params.get("envelope", options.envelope)
    try:
        check_listing(style, envelope)
    except ValueError as error:
        raise _bad(str(error)) from error
    size_text = next((params[name] for name in SIZE_PARAMS if name in params), str(options.page_size))
    since, before, after = _moment(params, "updated_since"), _moment(params, "updated_before"), None
    if "cursor" in params:
        since, before, after = _read_cursor(params["cursor"])
    return ListQuery(
        style,
        envelope,
        since,
        before,
        size=min(_whole(size_text, "page size", 1), options.page_size_max),
        page=_whole(params.get("page", "1"), "page", 1),
        offset=_whole(params.get("offset", "0"), "offset", 0),
        after=after,
    )


def cut_page(query: ListQuery, selection: Selection, *, stuck: bool = False) -> PageOfRows:
    """The rows of one page and the facts that go with them.

    ``stuck``: from the second page on, the next page is the same page again.
    """
    total = len(selection)
    if query.style == "none":
        return PageOfRows(selection.cut(0, total), {"total": total}, None)
    if query.style in {"page", "offset"}:
        return _counted(query, selection, stuck=stuck)
    offset = selection.offset_after(query.after) if query.after else 0
    rows = selection.cut(offset, query.size)
    cursor = None
    if stuck and query.after:
        cursor = query.cursor(query.after)
    elif offset + len(rows) < total:
        cursor = query.cursor(selection.key(rows[-1]))
    return PageOfRows(rows, {"total": total}, cursor)


def _counted(query: ListQuery, selection: Selection, *, stuck: bool) -> PageOfRows:
    total, size = len(selection), query.size
    if query.style == "page":
        number = min(query.page, 2) if stuck else query.page
        pages = -(-total // size)
        facts = {"total": total, "page": query.page, "per_page": size, "total_pages": pages}
        return PageOfRows(selection.cut((number - 1) * size, size), facts, None)
    offset = min(query.offset, size) if stuck else query.offset
    facts = {"total": total, "offset": query.offset, "limit": size}
    return PageOfRows(selection.cut(offset, size), facts, None)


def next_url(base: str, query: ListQuery, cursor: str) -> str:
    """Link to the page at ``cursor``; it repeats the style and envelope of the page it stands on."""
    params = {
        "cursor": cursor,
        "limit": query.size,
        "pagination": query.style,
        "envelope": query.envelope,
    }
    return f"{base}?{urlencode(params)}"


def headers(query: ListQuery, page: PageOfRows, link: str | None) -> dict[str, str]:
    """Response headers that lead to the next page. ``link`` is its URL, None on the last page."""
    if query.style == "link_header" and link:
        return {"Link": f'<{link}>; rel="next"'}
    if query.style == "header_cursor" and page.next_cursor:
        return {CURSOR_HEADER: page.next_cursor}
    return {}


def body(query: ListQuery, page: PageOfRows, texts: list[bytes], link: str | None) -> bytes:
    """JSON of one page. ``texts`` are its records as JSON, in the envelope's own shape."""
    array = b"[" + b",".join(texts) + b"]"
    envelope = ENVELOPES[query.envelope]
    if not envelope.records:
        return array
    document: dict[str, Any] = {}
    _put(document, envelope.records, orjson.Fragment(array))
    beside_total = envelope.total.rpartition(".")[0]
    for name, value in page.facts.items():
        path = envelope.total if name == "total" else f"{beside_total}.{name}".lstrip(".")
        _put(document, path, value)
    if query.style == "cursor" and not (envelope.drop_end and page.next_cursor is None):
        _put(document, envelope.cursor, page.next_cursor)
    if query.style == "next_link" and not (envelope.drop_end and link is None):
        _put(document, envelope.next, link)
    return orjson.dumps(document)


def instant(text: str) -> str:
    """ISO text (UTC when it names no zone), epoch seconds or milliseconds, as this CRM stamps time.

    Raises:
        ValueError: it is none of them.
    """
    try:
        number = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return iso(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    seconds = number / 1000 if number > _EPOCH_MS else number
    try:
        return iso(datetime.fromtimestamp(seconds, UTC))
    except (OverflowError, OSError) as error:
        raise ValueError("not a time") from error


def _put(document: dict[str, Any], path: str, value: Any) -> None:
    *outer, last = path.split(".")
    for name in outer:
        document = document.setdefault(name, {})
    document[last] = value


def _moment(params: Mapping[str, str], name: str) -> str | None:
    if name not in params:
        return None
    try:
        return instant(params[name])
    except ValueError as error:
        raise _bad(f"{name} must be an ISO 8601 time or epoch seconds") from error


def _read_cursor(text: str) -> tuple[str | None, str | None, tuple[Any, ...] | None]:
    try:
        since, before, after = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return since, before, tuple(after)
    except (binascii.Error, ValueError, TypeError) as error:
        raise _bad("the cursor is not one of ours") from error


def _whole(text: str, name: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise _bad(f"{name} must be a whole number from {least}")
    return int(text)


def _bad(message: str) -> RefusedError:
    return RefusedError(400, "bad_request", message)
