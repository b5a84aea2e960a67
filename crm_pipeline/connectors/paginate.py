"""Ways through a listing: small state machines that say what to ask for next.

The place reached is JSON, so that another process can go on from it. A walk that would not
end (the same place or the same page again, more pages than allowed) is an error: it never
just stops, because a listing cut short looks exactly like a complete one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

from crm_pipeline.connection import PageStyle, Pagination
from crm_pipeline.connectors.base import CrmAnswerError, Json, ResumeError, Resume
from crm_pipeline.connectors.documents import dig, first
from crm_pipeline.connectors.links import next_link

At: TypeAlias = str | int | None
"""A place in a listing: page number, offset, cursor or link."""

_MORE = ("has_more", "hasMore", "meta.has_more", "pagination.has_more", "paging.has_more", "info.more_records")
_PAGES = ("total_pages", "totalPages", "meta.total_pages", "meta.last_page", "last_page")
PAGE_COUNTS = (*_PAGES, "pagination.total_pages", "pagination.pages", "page.total_pages", "page.totalPages")


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What one page tells about the next."""

    body: Json
    headers: Mapping[str, str]
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


class Way(Protocol):
    """One style of paging. Its fields are its settings, kept with the place."""

    kind: ClassVar[str]

    def start(self) -> At:
        """Place of the first page."""

    def ask(self, at: At) -> Ask:
        """How to ask for the page at a place."""

    def after(self, at: At, facts: PageFacts) -> At:
        """Place of the page after this one; None when this was the last."""


@dataclass(frozen=True, slots=True)
class Single:
    """Everything is in one page."""

    kind: ClassVar[str] = "single"

    def start(self) -> At:
        return None

    def ask(self, at: At) -> Ask:  # noqa: ARG002
        return Ask({})

    def after(self, at: At, facts: PageFacts) -> At:  # noqa: ARG002
        return None


@dataclass(frozen=True, slots=True)
class ByNumber:
    """Pages by number, up to an empty one.

    A short page is not the last one: CRMs cut pages to a size of their own, and filter them
    by permission afterwards. Only an empty page ends a listing, or a plain word in the body.
    """

    param: str
    first: int
    total: str | None = None
    kind: ClassVar[str] = "number"

    def start(self) -> At:
        return self.first

    def ask(self, at: At) -> Ask:
        return Ask({self.param: str(at)})

    def after(self, at: At, facts: PageFacts) -> At:
        number = int(at or 0)
        pages = first_whole(facts.body, PAGE_COUNTS)
        counted_out = pages is not None and number - self.first + 1 >= pages
        return None if counted_out or _ended(facts, self.total) else number + 1


@dataclass(frozen=True, slots=True)
class ByOffset:
    """Pages by offset. It grows by what came, not by what was asked for: see ``ByNumber``."""

    param: str
    total: str | None = None
    kind: ClassVar[str] = "offset"

    def start(self) -> At:
        return 0

    def ask(self, at: At) -> Ask:
        return Ask({self.param: str(at)})

    def after(self, at: At, facts: PageFacts) -> At:
        return None if _ended(facts, self.total) else int(at or 0) + facts.count


@dataclass(frozen=True, slots=True)
class ByCursor:
    """A token in the body leads on; null, absent, empty or false ends."""

    path: str
    param: str
    kind: ClassVar[str] = "cursor"

    def start(self) -> At:
        return None

    def ask(self, at: At) -> Ask:
        return Ask({} if at is None else {self.param: str(at)})

    def after(self, at: At, facts: PageFacts) -> At:  # noqa: ARG002
        return _token(dig(facts.body, self.path), facts)


@dataclass(frozen=True, slots=True)
class ByHeaderCursor:
    """A token in a header leads on."""

    header: str
    param: str
    kind: ClassVar[str] = "header_cursor"

    def start(self) -> At:
        return None

    def ask(self, at: At) -> Ask:
        return Ask({} if at is None else {self.param: str(at)})

    def after(self, at: At, facts: PageFacts) -> At:  # noqa: ARG002
        return _token(facts.headers.get(self.header), facts)


@dataclass(frozen=True, slots=True)
class ByLink:
    """A link in the body leads on."""

    path: str
    kind: ClassVar[str] = "link"

    def start(self) -> At:
        return None

    def ask(self, at: At) -> Ask:
        return Ask({}, None if at is None else str(at))

    def after(self, at: At, facts: PageFacts) -> At:  # noqa: ARG002
        return _token(href(dig(facts.body, self.path)), facts)


@dataclass(frozen=True, slots=True)
class ByLinkHeader:
    """A ``Link`` header leads on."""

    kind: ClassVar[str] = "link_header"

    def start(self) -> At:
        return None

    def ask(self, at: At) -> Ask:
        return Ask({}, None if at is None else str(at))

    def after(self, at: At, facts: PageFacts) -> At:  # noqa: ARG002
        return _token(next_link(facts.headers.get("Link", "")), facts)


_WAYS: dict[str, type[Way]] = {
    way.kind: way for way in (Single, ByNumber, ByOffset, ByCursor, ByHeaderCursor, ByLink, ByLinkHeader)
}


def configured(paging: Pagination) -> Way | None:
    """The way a connection names; None when it is to be detected."""
    match paging.style:
        case PageStyle.DETECT:
            return None
        case PageStyle.NONE:
            return Single()
        case PageStyle.PAGE:
            return ByNumber(paging.page_param, paging.first_page, paging.total_path)
        case PageStyle.OFFSET:
            return ByOffset(paging.offset_param, paging.total_path)
        case PageStyle.CURSOR:
            return ByCursor(paging.cursor_path, paging.cursor_param)
        case PageStyle.NEXT_LINK:
            return ByLink(paging.next_path)
        case PageStyle.LINK_HEADER:
            return ByLinkHeader()
        case PageStyle.HEADER_CURSOR:
            return ByHeaderCursor(paging.cursor_header, paging.cursor_param)


class Walk:
    """One listing walked from a place to its end. Of pages passed it keeps only numbers."""

    def __init__(self, paging: Pagination, resume: Resume | None = None) -> None:
        """Stand at the start, or where ``resume`` says.

        Raises:
            ResumeError: ``resume`` is not a place of such a listing.
        """
        self._paging = paging
        self._way = configured(paging)
        self._at = self._way.start() if self._way else None
        self._pages = self._seen = 0
        if resume is not None:
            self._restore(resume)
        self._places = {hash(self._at)}
        self._digests: set[int] = set()

    @property
    def seen(self) -> int:
        """Records read so far."""
        return self._seen

    def ask(self) -> Ask:
        """Return the request for the page that is due."""
        return self._way.ask(self._at) if self._way else Ask({})

    def turn(self, facts: PageFacts) -> Resume | None:
        """Take note of a page; return the place of the next, None after the last.

        Raises:
            CrmAnswerError: the listing goes round in circles, or on and on; or it has more
                and gives no way to it.
        """
        from crm_pipeline.connectors.detect import check_complete, detect  # noqa: PLC0415

        if facts.count and facts.digest in self._digests:
            raise CrmAnswerError("the CRM sent the same page twice: the listing would never end")
        self._digests.add(facts.digest)
        self._pages, self._seen = self._pages + 1, facts.seen
        if self._way is None:
            self._way = detect(self._paging, facts)
            self._at = self._way.start()
        self._at = self._way.after(self._at, facts)
        if self._at is None:
            check_complete(self._paging, self._way, facts, self._pages)
            return None
        self._check_goes_on(self._at)
        return {
            "way": [self._way.kind, *astuple(self._way)],  # type: ignore[call-overload]
            "at": self._at,
            "pages": self._pages,
            "seen": self._seen,
        }

    def _check_goes_on(self, at: At) -> None:
        if hash(at) in self._places:
            raise CrmAnswerError("the CRM leads back to a page already read: the listing would never end")
        self._places.add(hash(at))
        if self._pages >= self._paging.max_pages:
            raise CrmAnswerError(f"the listing has more than {self._paging.max_pages} pages")

    def _restore(self, resume: Resume) -> None:
        try:
            kind, *fields = resume["way"]
            way = _WAYS[kind](*fields)
            at, pages, seen = resume["at"], int(resume["pages"]), int(resume["seen"])
        except (KeyError, TypeError, ValueError):
            raise ResumeError("the place to go on from cannot be read") from None
        if self._way not in {None, way} or not isinstance(at, str | int):
            raise ResumeError("the connection's way of paging has changed since")
        self._way, self._at, self._pages, self._seen = way, at, pages, seen


def first_whole(body: Json, paths: tuple[str, ...]) -> int | None:
    """First whole number at one of the paths."""
    for path in paths:
        value = dig(body, path)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def href(value: Json) -> Json:
    """A link that may be wrapped, as HAL and JSON:API do."""
    return first(value, ("href", "url", "link")) if isinstance(value, dict) else value


def says_more(body: Json) -> bool | None:
    """Whether the body says there is more; None when it does not speak of it."""
    value = first(body, _MORE)
    return value if isinstance(value, bool) else None


def _ended(facts: PageFacts, total_path: str | None) -> bool:
    """Whether a counted page is the last: it is empty, or the body says so."""
    more = says_more(facts.body)
    if facts.count == 0:
        if more:
            raise CrmAnswerError("a page is empty, though the CRM says there is more")
        return True
    total = first_whole(facts.body, (total_path,)) if total_path else None
    return more is False or (total is not None and facts.seen >= total)


def _token(value: Json, facts: PageFacts) -> At:
    """Check a cursor or link."""
    if value is None or value == "" or value is False:
        if says_more(facts.body):
            raise CrmAnswerError("the CRM says there is more, and gives no way to it; see pagination")
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise CrmAnswerError("the way to the next page is neither text nor a number; see pagination")
    return value
