"""A listing walked page by page, with proof that it ends and a place to go on from.

The place is JSON, so that another process can go on. A walk that would not end (the same
place or the same page again, more pages than allowed) is an error: it never just stops,
because a listing cut short looks exactly like a complete one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple

from crm_pipeline.connection import PageStyle, Pagination
from crm_pipeline.connectors.base import CrmAnswerError, Resume, ResumeError
from crm_pipeline.connectors.detect import check_complete, detect
from crm_pipeline.connectors.paginate import COUNTED, LINKED, Ask, At, PageFacts, Way, configured


class Walk:
    """One listing walked from a place to its end. Of pages passed it keeps only numbers."""

    def __init__(
        self, paging: Pagination, follow: Callable[[str, str], str], resume: Resume | None = None
    ) -> None:
        """Stand at the start, or where ``resume`` says.

        Args:
            paging: the connection's way of paging.
            follow: resolves a link found at a URL, or raises ``CrmAnswerError``.
            resume: what ``turn`` returned before.

        Raises:
            ResumeError: ``resume`` is not a place of such a listing, or of one whose pages are counted:
                a record that was deleted or edited since moves others to pages already read.
        """
        self._paging, self._follow = paging, follow
        self._way = configured(paging)
        self._at = self._way.start() if self._way else None
        self._certain: range | None = None
        self._pages = self._seen = 0
        if resume is not None:
            self._restore(resume)
        self._places = {hash(self._at)}
        self._digests: set[int] = set()

    @property
    def seen(self) -> int:
        """Records read so far."""
        return self._seen

    @property
    def at(self) -> At:
        """Place of the page that is due."""
        return self._at

    def ask(self) -> Ask:
        """Return the request for the page that is due."""
        return self._way.ask(self._at) if self._way else Ask({})

    def certain(self, most: int) -> dict[At, Ask]:
        """Requests for pages that are there for certain, by place: the one that is due, and those after it.

        Only counted pages can be told beforehand. They are asked for by the size of the first one;
        of a CRM whose pages turn out to be of several sizes, none is foretold any more.
        """
        places = self._certain or ()
        if self._way is None or self._at not in places:
            return {}
        here = places.index(int(self._at or 0))
        return {place: self._way.ask(place) for place in places[here : here + most]}

    def turn(self, facts: PageFacts) -> Resume | None:
        """Take note of a page; return the place of the next, None after the last.

        Raises:
            CrmAnswerError: the listing goes round in circles, or on and on; or it has more
                and gives no way to it.
        """
        if facts.count and facts.digest in self._digests:
            raise CrmAnswerError("the CRM sent the same page twice: the listing would never end")
        self._digests.add(facts.digest)
        self._pages, self._seen = self._pages + 1, facts.seen
        if self._way is None:
            self._way = detect(self._paging, facts)
            self._at = self._way.start()
        self._at = self._way.after(self._at, facts)
        if self._certain is None:
            self._certain = self._way.certain(self._at, facts)
        if self._at is None:
            check_complete(self._paging, self._way, facts, self._pages)
            return None
        if self._way.style in LINKED:
            self._at = self._follow(facts.url, str(self._at))
        self._check_goes_on(self._at)
        style, *settings = astuple(self._way)
        way = [style.value, *settings]
        return {"way": way, "at": self._at, "pages": self._pages, "seen": self._seen}

    def _check_goes_on(self, at: At) -> None:
        if hash(at) in self._places:
            raise CrmAnswerError("the CRM leads back to a page already read: the listing would never end")
        self._places.add(hash(at))
        if self._pages >= self._paging.max_pages:
            raise CrmAnswerError(f"the listing has more than {self._paging.max_pages} pages")

    def _restore(self, resume: Resume) -> None:
        try:
            style, *settings = resume["way"]
            way = Way(PageStyle(style), *settings)
            at, pages, seen = resume["at"], int(resume["pages"]), int(resume["seen"])
            if way.style in LINKED:
                at = self._follow(at, at)
            known = isinstance(at, str | int)
        except (KeyError, TypeError, ValueError, AttributeError, CrmAnswerError):
            raise ResumeError("the place to go on from cannot be read") from None
        if way.style in COUNTED:
            raise ResumeError("pages are counted: what was read before may have moved behind the place")
        if not known or self._way not in {None, way}:
            raise ResumeError("the connection's way of paging has changed since")
        self._way, self._at, self._pages, self._seen = way, at, pages, seen
