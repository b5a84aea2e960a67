"""Walking a listing: every style reads all of it once, resumes anywhere, and always ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline.connection import Pagination
from crm_pipeline.connectors.base import CrmAnswerError, Resume, ResumeError
from crm_pipeline.connectors.paginate import Ask, PageFacts
from crm_pipeline.connectors.walk import Walk

BASE = "https://crm.example/contacts"
Crm = Callable[[Ask], tuple[Any, dict[str, str], list[int]]]
"""Answers a request: body, headers, records."""


def follow(current: str, link: str) -> str:
    """Resolve a link the way the connector does, as far as these tests need it."""
    if "evil" in link:
        raise CrmAnswerError("refused")
    return link if link.startswith("https:") else current.partition("?")[0] + link


def steps(
    paging: Pagination, crm: Crm, resume: Resume | None = None
) -> Iterator[tuple[list[int], Resume | None]]:
    """Walk to the end, page by page, with the place after each."""
    walk = Walk(paging, follow, resume)
    while True:
        ask = walk.ask()
        body, headers, records = crm(ask)
        facts = PageFacts(
            body, headers, ask.link or BASE, len(records), hash(tuple(records)), walk.seen + len(records)
        )
        place = walk.turn(facts)
        yield records, place
        if place is None:
            return


@dataclass(frozen=True)
class Cut:
    """One page cut from a listing: where it starts, and where the next one does."""

    start: int
    following: int | None
    size: int
    count: int

    @property
    def link(self) -> str | None:
        """Link to the next page."""
        return None if self.following is None else f"?from={self.following}"

    @property
    def token(self) -> str | None:
        """Cursor of the next page."""
        return None if self.following is None else str(self.following)


DIALECTS: dict[str, Callable[[Cut], dict[str, Any]]] = {
    "page": lambda _cut: {},
    "page_total": lambda cut: {
        "page": cut.start // cut.size + 1,
        "total_pages": -(-cut.count // cut.size),
        "total": cut.count,
    },
    "page_more": lambda cut: {"has_more": cut.following is not None},
    "offset": lambda _cut: {},
    "offset_total": lambda cut: {"offset": cut.start, "total": cut.count},
    "cursor": lambda cut: {"meta": {"next_cursor": cut.token}},
    "after": lambda cut: {"paging": {"next": {"after": cut.token}}} if cut.token else {},
    "token": lambda cut: {"nextPageToken": cut.token or ""},
    "number": lambda cut: {"next_page": cut.following},
    "link": lambda cut: {"links": {"next": cut.link}},
    "hal": lambda cut: {"_links": {"next": {"href": BASE + cut.link}} if cut.link else {}},
    "odata": lambda cut: {"@odata.nextLink": f"/contacts{cut.link}"} if cut.link else {},
    "link_header": lambda cut: {"Link": f'<{cut.link}>; rel="next"'} if cut.link else {},
    "header": lambda cut: {"X-Next-Cursor": cut.token} if cut.token else {},
}
IN_HEADERS = ("link_header", "header")


def listing(style: str, count: int, size: int, *, filtered: int = 0) -> Crm:
    """Serve so many records in pages, in one style.

    Every ``filtered``-th record is hidden from a page after it was cut, as permissions do.
    """

    def answer(ask: Ask) -> tuple[Any, dict[str, str], list[int]]:
        text = ask.link.rpartition("=")[2] if ask.link else next(iter(ask.params.values()), "")
        start = int(text or 0)
        if style.startswith("page"):
            start = (start - 1) * size if text else 0
        following = start + size if start + size < count else None
        rows = [row for row in range(start, min(start + size, count)) if not filtered or row % filtered]
        facts = DIALECTS[style](Cut(start, following, size, count))
        return ({}, facts, rows) if style in IN_HEADERS else (facts, {}, rows)

    return answer


CONFIGURED: list[tuple[str, dict[str, Any]]] = [
    ("page", {"style": "page"}),
    ("page_total", {"style": "page"}),
    ("page_total", {"style": "page", "total_path": "total"}),
    ("page_more", {"style": "page"}),
    ("offset", {"style": "offset"}),
    ("offset_total", {"style": "offset", "total_path": "total"}),
    ("cursor", {"style": "cursor", "cursor_path": "meta.next_cursor"}),
    ("token", {"style": "cursor", "cursor_path": "nextPageToken", "cursor_param": "pageToken"}),
    ("link", {"style": "next_link", "next_path": "links.next"}),
    ("odata", {"style": "next_link", "next_path": "@odata.nextLink"}),
    ("link_header", {"style": "link_header"}),
    ("header", {"style": "header_cursor"}),
]
DETECTED = ["page_total", "page_more", "offset_total", "cursor", "after", "token", "number"]
DETECTED += ["link", "hal", "odata", "link_header"]
WALKS = [
    *((style, Pagination.model_validate(settings)) for style, settings in CONFIGURED),
    *((style, Pagination()) for style in DETECTED),
]


@given(st.sampled_from(WALKS), st.integers(0, 60), st.integers(1, 12))
def test_every_style_reads_everything_once(walked: tuple[str, Pagination], count: int, size: int) -> None:
    """All records come, each once, in order, whether the style is told or detected."""
    style, paging = walked
    read = [row for rows, _ in steps(paging, listing(style, count, size)) for row in rows]
    assert read == list(range(count))


@given(st.sampled_from(WALKS), st.integers(1, 60), st.integers(1, 12), st.data())
def test_another_process_goes_on_anywhere(
    walked: tuple[str, Pagination], count: int, size: int, data: st.DataObject
) -> None:
    """From the place after any page, gone through JSON, the rest is read and nothing twice.

    Counted pages start anew: what was edited or deleted meanwhile has moved others to pages already read.
    """
    style, paging = walked
    crm = listing(style, count, size)
    pages = list(steps(paging, crm))
    stop = data.draw(st.integers(0, len(pages) - 1))
    place = pages[stop][1]
    if place is None:
        return
    if place["way"][0] in {"page", "offset"}:
        with pytest.raises(ResumeError):
            list(steps(paging, crm, place))
        return
    rest = list(steps(paging, crm, json.loads(json.dumps(place))))
    assert rest == pages[stop + 1 :]


@given(st.integers(0, 60), st.integers(1, 9), st.sampled_from(["page", "offset"]))
def test_a_crm_with_pages_smaller_than_asked_is_read_whole(count: int, own_size: int, style: str) -> None:
    """A short page is not the end: the CRM may cap its pages."""
    crm = listing(style, count, own_size)
    read = [row for rows, _ in steps(Pagination.model_validate({"style": style}), crm) for row in rows]
    assert read == list(range(count))


@given(st.integers(0, 60), st.integers(2, 9), st.integers(2, 5))
def test_pages_filtered_after_cutting_are_read_whole(count: int, size: int, filtered: int) -> None:
    """Pages made short by permissions do not end a listing either."""
    crm = listing("page", count, size, filtered=filtered)
    read = [row for rows, _ in steps(Pagination.model_validate({"style": "page"}), crm) for row in rows]
    assert read == [row for row in range(count) if row % filtered]


def cursors(*tokens: Any) -> Crm:
    """A CRM that gives these cursors in turn, each with a page of its own."""
    left = iter(enumerate(tokens))

    def answer(_ask: Ask) -> tuple[Any, dict[str, str], list[int]]:
        number, token = next(left)
        return {"next_cursor": token}, {}, [number]

    return answer


CURSOR = Pagination.model_validate({"style": "cursor", "max_pages": 50})


@pytest.mark.parametrize(
    "crm,pages",
    [
        (cursors("a", "a"), 1),
        (cursors(*"ab" * 100), 2),
        (cursors(*"abc" * 100), 3),
        (cursors(*map(str, range(1000))), 49),
        (cursors(*range(1, 1000)), 49),
    ],
    ids=["same", "two-cycle", "three-cycle", "endless", "endless-numbers"],
)
def test_endless_listings_are_errors(crm: Crm, pages: int) -> None:
    """A repeated cursor, a cycle or pages without end fail, and the last page's place is not given out."""
    walked = steps(CURSOR, crm)
    for _ in range(pages):
        assert next(walked)[1] is not None
    with pytest.raises(CrmAnswerError):
        next(walked)


@pytest.mark.parametrize("token", [None, "", False])
def test_ends_of_a_cursor(token: Any) -> None:
    """Null, empty text and false end a listing."""
    assert [place is None for _, place in steps(CURSOR, cursors("a", token))] == [False, True]


@pytest.mark.parametrize("token", [True, {"a": 1}, ["a"], 1.5])
def test_strange_cursor_is_an_error(token: Any) -> None:
    """What no request can carry is not taken for the end."""
    with pytest.raises(CrmAnswerError, match="pagination"):
        list(steps(CURSOR, cursors(token)))


@pytest.mark.parametrize("settings", [{"style": "page"}, {"style": "offset"}, {}])
def test_ignored_page_parameter_is_an_error(settings: dict[str, Any]) -> None:
    """A CRM that sends the same page whatever is asked would never end: it is told."""
    with pytest.raises(CrmAnswerError, match="same page"):
        list(steps(Pagination.model_validate(settings), lambda _ask: ({"has_more": True}, {}, [1, 2, 3])))


def test_alternating_pages_are_an_error() -> None:
    """Pages that come back under fresh cursors are noticed by what they hold."""
    tokens = iter(range(1000))
    with pytest.raises(CrmAnswerError, match="same page"):
        list(steps(CURSOR, lambda _ask: ({"next_cursor": f"t{(n := next(tokens))}"}, {}, [n % 2, 5])))


def test_empty_pages_may_follow_each_other() -> None:
    """A CRM that filters after paging sends empty pages with a cursor: they are no repetition."""
    bodies = iter(["a", "b", "c", None])
    pages = list(steps(CURSOR, lambda _ask: ({"next_cursor": next(bodies)}, {}, [])))
    assert len(pages) == 4


def test_page_cap_counts_across_processes() -> None:
    """A walk that is resumed again and again still ends at the cap."""
    place: Resume | None = None
    for number in range(49):
        _, place = next(steps(CURSOR, cursors(str(number)), place))
    with pytest.raises(CrmAnswerError, match="more than 50 pages"):
        next(steps(CURSOR, cursors("last"), place))


@pytest.mark.parametrize(
    "body",
    [
        {"next": "opaque-token"},
        {"has_more": True, "next_cursor": None},
        {"total": 300},
        {"meta": {"total": 2}},
        {"total_count": 2},
    ],
)
def test_more_without_a_known_way_is_an_error(body: dict[str, Any]) -> None:
    """A first page that is visibly not all is never taken for all, when nothing leads on."""

    def crm(ask: Ask) -> tuple[Any, dict[str, str], list[int]]:
        return body, {}, [] if ask.params else [1]

    with pytest.raises(CrmAnswerError, match=r"pagination|there is more"):
        list(steps(Pagination(), crm))


@pytest.mark.parametrize("body", [{}, {"total": 1}, {"count": 1, "next": None}, {"has_more": False}, []])
def test_one_page_may_be_all(body: Any) -> None:
    """A page that leads nowhere and lacks nothing is the whole listing."""
    assert len(list(steps(Pagination(), lambda _ask: (body, {}, [1])))) == 1


def test_result_cap_is_not_taken_for_the_end() -> None:
    """A CRM that stops at 100 of 1000 records, with an empty page, is not read to its end."""

    def capped(ask: Ask) -> tuple[Any, dict[str, str], list[int]]:
        start = int(ask.params.get("offset", 0))
        rows = list(range(start, min(start + 10, 100)))
        return {"total": 1000, "offset": start}, {}, rows

    with pytest.raises(CrmAnswerError, match="100 of 1000"):
        list(steps(Pagination(), capped))


def test_foreign_link_is_refused_with_its_page() -> None:
    """A page with a link that leaves gives no place to go on from."""
    with pytest.raises(CrmAnswerError, match="refused"):
        list(steps(Pagination(), lambda _ask: ({"next": "https://evil.example"}, {}, [1])))


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"way": ["cursor"]},
        {"way": [], "at": "a", "pages": 1, "seen": 1},
        {"way": ["sideways", "", "", 0], "at": "a", "pages": 1, "seen": 1},
        {"way": ["cursor", "cursor", "next_cursor", 0], "at": None, "pages": 1, "seen": 1},
        {"way": ["cursor", "cursor", "next_cursor", 0], "at": "a", "pages": "x", "seen": 1},
        {"way": ["cursor", "other", "next_cursor", 0], "at": "a", "pages": 1, "seen": 1},
        {"way": ["page", "page", "", 1], "at": "a", "pages": 1, "seen": 1},
        {"way": ["next_link", "", "next", 0], "at": "https://evil.example", "pages": 1, "seen": 1},
        {"way": ["next_link", "", "next", 0], "at": 5, "pages": 1, "seen": 1},
        {"way": 5, "at": "a", "pages": 1, "seen": 1},
        {"way": ["cursor", "c", "n", 0, 9], "at": "a", "pages": 1, "seen": 1},
    ],
)
def test_a_place_of_another_listing_is_refused(place: Resume) -> None:
    """A place that cannot be read, or belongs to other settings, starts the window again."""
    with pytest.raises(ResumeError):
        Walk(CURSOR, follow, place)
