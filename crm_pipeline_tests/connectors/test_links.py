"""The Link header, as RFC 8288 allows it to be written."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline.connectors.base import CrmAnswerError
from crm_pipeline.connectors.links import next_link


@pytest.mark.parametrize(
    "header,target",
    [
        ("", None),
        ('</x?page=2>; rel="next"', "/x?page=2"),
        ("</x>; rel=next", "/x"),
        ("</x>;REL=NEXT", "/x"),
        ('</x> ; rel = "next"', "/x"),
        ('</1>; rel="prev", </3>; rel="next"', "/3"),
        ('</1>; rel="prev",</3>;title="a, b; c";rel="next"', "/3"),
        ('</3>; rel="last next"', "/3"),
        (r'</3>; title="say \"next\""; rel="next"', "/3"),
        ('</a,b;c>; rel="next"', "/a,b;c"),
        ('</1>; rel="first"; rel="next"', None),
        ('</1>; rel="nextish"', None),
        ('</1>; rel="next"; anchor="/other"', None),
        ('</1>; crossorigin; rel="next"', "/1"),
        (', , </1>; rel="next"', "/1"),
        ('</1>; title="next"', None),
        ('<>; rel="next"', ""),
        ('</1>; rel="prev" rubbish', None),
    ],
)
def test_next_is_found(header: str, target: str | None) -> None:
    """Only the first link of this page with the relation next counts, however it is written."""
    assert next_link(header) == target


@pytest.mark.parametrize(
    "header", ['/x; rel="next"', '</1>; rel="prev"; </2>; rel="next"', '</x; rel="next"']
)
def test_unreadable_next_is_an_error(header: str) -> None:
    """A header that speaks of a next page and cannot be read does not count as the end."""
    with pytest.raises(CrmAnswerError):
        next_link(header)


@given(st.text(alphabet='<>;,"\\= relnxt\t/', max_size=60))
def test_any_header_is_answered(header: str) -> None:
    """Every text gives a target, none, or the one error."""
    try:
        next_link(header)
    except CrmAnswerError:
        assert "next" in header.lower()


@pytest.mark.parametrize("piece", [" ", ";", "; a", ';a="', "\\", ",", "<", '; a="b"', "<x>,"])
def test_hostile_header_costs_no_time(piece: str) -> None:
    """A header of the largest size is read in no time, whatever it repeats."""
    began = time.perf_counter()
    next_link("<x>" + piece * (60_000 // len(piece)))
    assert time.perf_counter() - began < 0.5
