"""Ways from one page of a listing to the next: small state machines without state.

The place reached is plain JSON, kept by whoever walks (``walk.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from crm_pipeline.connection import PageStyle, Pagination
from crm_pipeline.connectors.base import CrmAnswerError, Json
from crm_pipeline.connectors.documents import dig, first
from crm_pipeline.connectors.links import next_link

At: TypeAlias = str | int | None
"""A place in a listing: page number, offset, cursor or link. None is the start, or the end."""

PAGE_COUNTS = (
    "total_pages",
    "totalPages",
    "last_page",
    "meta.total_pages",
    "meta.last_page",
    "pagination.total_pages",
    "pagination.pages",
    "page.total_pages",
    "page.totalPages",
)
_MORE = (
    "has_more",
    "hasMore",
    "meta.has_more",
    "pagination.has_more",
    "paging.has_more",
    "info.more_records",
)
LINKED = frozenset({PageStyle.NEXT_LINK, PageStyle.LINK_HEADER})
COUNTED = frozenset({PageStyle.PAGE, PageStyle.OFFSET})


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What one page tells about the next."""

    body: Json
    headers: Mapping[str, str]
    url: str
    """Where it was read from: links are relative to it."""
    count: int
    """Records on it."""
    digest: int
    """Stands for the records on it: equal pages, equal digests."""
    seen: int
    """Records read so far, these included."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The next request: parameters beside the listing's own, or a link in place of them all."""

    params: dict[str, str]
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """One style of paging with its settings; JSON-able field by field.

    Counted pages (by number or offset) go on to an empty one. A short page is not the last:
    CRMs cut pages to a size of their own, and filter them by permission afterwards. So an
    offset grows by what came, not by what was asked for, and only an empty page ends, or a
    plain word in the body (has_more, total pages, the configured total).
    """

    style: PageStyle
    param: str = ""
    """Query parameter that carries the place."""
    source: str = ""
    """Path or header of what leads on; of counted pages, the path of the total."""
    first: int = 0

    def start(self) -> At:
        """Place of the first page."""
        return self.first if self.style in COUNTED else None

    def ask(self, at: At) -> Ask:
        """Return the request for the page at a place."""
        if at is None:
            return Ask({})
        return Ask({}, str(at)) if self.style in LINKED else Ask({self.param: str(at)})

    def after(self, at: At, facts: PageFacts) -> At:
        """Return the place of the page after this one; None when this was the last.

        Raises:
            CrmAnswerError: there is more, and no way to it.
        """
        if self.style not in COUNTED:
            return _token(_LEADS[self.style](facts, self.source), facts)
        here = int(at or 0)
        if self._ends(here, facts):
            return None
        return here + (facts.count if self.style is PageStyle.OFFSET else 1)

    def certain(self, at: At, facts: PageFacts) -> range:
        """Places of the pages from the next one on, as far as a page tells that they are there."""
        if self.style is PageStyle.PAGE and isinstance(at, int):
            return range(at, self.first + (first_whole(facts.body, PAGE_COUNTS) or 0))
        if self.style is PageStyle.OFFSET and isinstance(at, int) and self.source:
            return range(at, first_whole(facts.body, (self.source,)) or 0, max(1, facts.count))
        return range(0)

    def _ends(self, here: int, facts: PageFacts) -> bool:
        more = says_more(facts.body)
        if facts.count == 0:
            if more:
                raise CrmAnswerError("a page is empty, though the CRM says there is more")
            return True
        pages = first_whole(facts.body, PAGE_COUNTS) if self.style is PageStyle.PAGE else None
        total = first_whole(facts.body, (self.source,)) if self.source else None
        return (
            more is False
            or (pages is not None and here - self.first + 1 >= pages)
            or (total is not None and facts.count <= total <= facts.seen)  # less than a page is no total
        )


_LEADS: dict[PageStyle, Callable[[PageFacts, str], Json]] = {
    PageStyle.NONE: lambda _facts, _source: None,
    PageStyle.CURSOR: lambda facts, path: dig(facts.body, path),
    PageStyle.HEADER_CURSOR: lambda facts, header: facts.headers.get(header),
    PageStyle.NEXT_LINK: lambda facts, path: href(dig(facts.body, path)),
    PageStyle.LINK_HEADER: lambda facts, _source: next_link(facts.headers.get("Link", "")),
}
"""What leads on, by style."""


def configured(paging: Pagination) -> Way | None:
    """Return the way a connection names; None when it is to be detected."""
    style, total = paging.style, paging.total_path or ""
    ways = {
        PageStyle.NONE: Way(style),
        PageStyle.PAGE: Way(style, paging.page_param, total, paging.first_page),
        PageStyle.OFFSET: Way(style, paging.offset_param, total),
        PageStyle.CURSOR: Way(style, paging.cursor_param, paging.cursor_path),
        PageStyle.HEADER_CURSOR: Way(style, paging.cursor_param, paging.cursor_header),
        PageStyle.NEXT_LINK: Way(style, source=paging.next_path),
        PageStyle.LINK_HEADER: Way(style),
    }
    return ways.get(style)


def first_whole(body: Json, paths: tuple[str, ...]) -> int | None:
    """Return the first whole number at one of the paths."""
    for path in paths:
        value = dig(body, path)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def href(value: Json) -> Json:
    """Return a link that may be wrapped, as HAL and JSON:API do."""
    return first(value, ("href", "url", "link")) if isinstance(value, dict) else value


def says_more(body: Json) -> bool | None:
    """Tell whether the body says there is more; None when it does not speak of it."""
    value = first(body, _MORE)
    return value if isinstance(value, bool) else None


def _token(value: Json, facts: PageFacts) -> At:
    """Check what leads on; null, absent, empty and false end a listing."""
    if value is None or value == "" or value is False:
        if says_more(facts.body):
            raise CrmAnswerError("the CRM says there is more, and gives no way to it; see pagination")
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise CrmAnswerError("the way to the next page is neither text nor a number; see pagination")
    return value
