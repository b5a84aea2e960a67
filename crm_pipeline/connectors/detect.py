"""How a CRM pages, told from its first page, where the connection does not say."""

from __future__ import annotations

import re

from crm_pipeline.connection import PageStyle, Pagination
from crm_pipeline.connectors.base import CrmAnswerError
from crm_pipeline.connectors.documents import dig
from crm_pipeline.connectors.links import next_link
from crm_pipeline.connectors.paginate import (
    COUNTED,
    PAGE_COUNTS,
    PageFacts,
    Way,
    first_whole,
    href,
    says_more,
)

_LINKS = (
    "next",
    "links.next",
    "_links.next",
    "paging.next.link",
    "paging.next",
    "pagination.next",
    "meta.next",
    "@odata.nextLink",
    "nextLink",
    "next_page_url",
    "next_page",
    "nextRecordsUrl",
)
_CURSOR, _PAGE = "cursor", "page"
_CURSORS = (
    ("next_cursor", _CURSOR),
    ("nextCursor", _CURSOR),
    ("meta.next_cursor", _CURSOR),
    ("meta.nextCursor", _CURSOR),
    ("page.next_cursor", _CURSOR),
    ("pagination.next_cursor", _CURSOR),
    ("paging.next.after", "after"),
    ("paging.cursors.after", "after"),
    ("nextPageToken", "pageToken"),
    ("next_page_token", "page_token"),
    ("info.next_page_token", "page_token"),
    ("next_page", _PAGE),
    ("meta.next_page", _PAGE),
    ("pagination.next_page", _PAGE),
    ("cursor", _CURSOR),
)
"""Where a token stands, and the parameter it belongs to."""
_NUMBERS = (
    "page",
    "current_page",
    "meta.page",
    "meta.current_page",
    "pagination.page",
    "pagination.current_page",
    "page.page",
    "page.number",
)
_OFFSETS = ("offset", "meta.offset", "pagination.offset", "paging.offset", "page.offset")
_TOTALS = (
    "total",
    "total_count",
    "totalCount",
    "count",
    "meta.total",
    "meta.total_count",
    "pagination.total",
    "paging.total",
    "page.total",
    "page.totalElements",
    "@odata.count",
)
_LINK = re.compile(r"https?://|/|\?|[^?]+\?", re.IGNORECASE)


def detect(paging: Pagination, facts: PageFacts) -> Way:
    """Tell the way to the second page; no paging at all when the first is all there is.

    Raises:
        CrmAnswerError: there is more, and no known way to it.
    """
    way = _by_link(facts) or _by_cursor(paging, facts) or _by_count(paging, facts)
    if way is not None:
        return way
    if dig(facts.body, "next"):
        raise CrmAnswerError("'next' is no link; pagination.style and cursor_path say what it is")
    return Way(PageStyle.NONE)


def check_complete(paging: Pagination, way: Way, facts: PageFacts, pages: int) -> None:
    """Refuse an end that comes before the total the body itself gives.

    Only while the style is detected, or where the connection says what the total is: a
    ``total`` may count something else. A listing that shifts while it is read may come out
    short by a page.

    Raises:
        CrmAnswerError: records are missing.
    """
    if paging.style is not PageStyle.DETECT and paging.total_path is None:
        return
    total = first_whole(facts.body, (paging.total_path,) if paging.total_path else _TOTALS)
    counted = way.style in COUNTED
    slack = facts.seen / pages if counted else 0
    if total is not None and total > facts.seen + slack and (counted or way.style is PageStyle.NONE):
        raise CrmAnswerError(
            f"the listing ended after {facts.seen} of {total} records; pagination.style says how to go on"
        )


def _by_link(facts: PageFacts) -> Way | None:
    if next_link(facts.headers.get("Link", "")) is not None:
        return Way(PageStyle.LINK_HEADER)
    for path in _LINKS:
        value = href(dig(facts.body, path))
        if isinstance(value, str) and _LINK.match(value):
            return Way(PageStyle.NEXT_LINK, source=path)
    return None


def _by_cursor(paging: Pagination, facts: PageFacts) -> Way | None:
    own = {_CURSOR: paging.cursor_param, _PAGE: paging.page_param}
    for path, param in _CURSORS:
        value = dig(facts.body, path)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return Way(PageStyle.CURSOR, own.get(param, param), path)
    return None


def _by_count(paging: Pagination, facts: PageFacts) -> Way | None:
    number = first_whole(facts.body, _NUMBERS)
    if first_whole(facts.body, PAGE_COUNTS) is not None or says_more(facts.body):
        start = paging.first_page if number is None else number
        return Way(PageStyle.PAGE, paging.page_param, first=start)
    if first_whole(facts.body, _OFFSETS) is not None and first_whole(facts.body, _TOTALS) is not None:
        return Way(PageStyle.OFFSET, paging.offset_param)
    return None
