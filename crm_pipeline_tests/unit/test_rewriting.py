"""Sameness and rewriting: what is one value in two spellings, and what a CRM made of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline.sync.coerce import Value, same
from crm_pipeline.sync.rewriting import looks_rewritten

NINE = "2026-01-31T09:15:45.123456Z"


@pytest.mark.parametrize(
    "left, right",
    [
        ("Budi", " Budi\n"),
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("caf\u00e9", "cafe\u0301"),
        ("\u212bngstr\u00f6m", "\u00c5ngstr\u00f6m"),
        ("", " "),
        (0, 0),
        (None, None),
        ("\ud800", "\ud800 "),
    ],
)
def test_what_no_user_means_by_an_edit_is_the_same(left: Value, right: Value) -> None:
    """Blanks around a text, the kind of line end, the composition of a letter."""
    assert same(left, right)


@pytest.mark.parametrize(
    "left, right",
    [
        ("Budi", "budi"),
        ("a b", "a  b"),
        ("", None),
        (0, None),
        (0, ""),
        (1, "1"),
        ("\uff11", "1"),
        ("ﬁ", "fi"),
    ],
)
def test_what_a_user_could_mean_is_different(left: Value, right: Value) -> None:
    """Another case, other blanks inside, null against empty, a number against text."""
    assert not same(left, right)
    assert not same(right, left)


NEAR = st.sampled_from(["", " ", "a", "a ", "\u00e9", "e\u0301", "a\r\nb", "a\nb", None, 0, 1])


@given(one=NEAR | st.text(), two=NEAR | st.text(), three=NEAR | st.text())
def test_sameness_is_an_equivalence(one: Value, two: Value, three: Value) -> None:
    """Reflexive, symmetric, transitive: values may be compared in any order."""
    assert same(one, one)
    assert same(one, two) == same(two, one)
    assert not (same(one, two) and same(two, three)) or same(one, three)


# Rewriting.

LONG = "A note about the concert in March, the stage plan and the second sound check"


@pytest.mark.parametrize(
    "written, seen",
    [
        (" Budi ", "Budi"),
        ("Budi  Santoso", "Budi Santoso"),
        ("a\n\n b", "a b"),
        ("Budi", "BUDI"),
        ("STRASSE", "straße"),
        ("Budi@Example.com", "budi@example.com"),
        (LONG, LONG[:32]),
        (LONG, LONG[:-1]),
        (LONG, LONG[:40].upper() + " "),
        ("0812-3456-789", "0812 3456 789"),
        ("+62 812 3456 789", "(62) 812.3456.789"),
        ("628123456789@c.us", "628123456789"),
        ("628123456789", "628123456789@s.whatsapp.net"),
        ("628123456789", "62-8123456789@C.US"),
        ("123-456", "12 34 56"),
        ("+62\u2011812\u20113456\u2011789", "+628123456789"),
        (NINE, "2026-01-31T09:15:45.123000Z"),
        (NINE, "2026-01-31T09:15:45.000000Z"),
        (NINE, "2026-01-31T09:15:00.000000Z"),
        (NINE, "2026-01-31T00:00:00.000000Z"),
        ("2026-01-31T09:15:45.500100Z", "2026-01-31T09:15:45.500000Z"),
        (NINE, NINE.lower()),  # in a text field
        (NINE.lower(), NINE),
        ("", None),
        (None, ""),
        (" \n", None),
        (" ", ""),
    ],
)
def test_what_a_crm_makes_of_a_value(written: Value, seen: Value) -> None:
    """Trimmed, in another case, cut, punctuated in its own way: it is still our write."""
    assert looks_rewritten(written, seen)


@pytest.mark.parametrize("mark", " ()+./-\u2010\u2011\u2012\u2013\u2014\u2015", ids=ascii)
def test_any_punctuation_of_a_phone_is_the_same_phone(mark: str) -> None:
    """What a CRM puts between the digits, or takes away."""
    assert looks_rewritten("0812 345 679", f"0812345{mark}679")
    assert looks_rewritten(f"0812345{mark}679", "0812 345 679")


@pytest.mark.parametrize(
    "written, seen",
    [
        ("Budi", "Sari"),
        ("Budi", None),
        ("Budi", ""),
        (None, "Budi"),
        ("", "Budi"),
        (LONG, LONG[:31]),  # shorter than any CRM's limit: cut by a person
        (LONG[:32], LONG),
        (LONG, LONG[1:]),
        ("0812-3456-789", "0812-3456-780"),
        ("0812-3456-789", "0812-3456-78"),
        ("0812-3456-789", "812-3456-789"),
        ("12-345", "1-2345"),  # too short for a phone
        ("call 08123456789 today", "mail 08123456789 never"),  # a text that holds a phone is no phone
        ("08123456789", "not 08123456789"),
        ("not 08123456789", "08123456789"),
        ("hall A 123456", "hall B 123456"),
        (NINE, "2026-01-31T09:15:44.000000Z"),
        (NINE, "2026-01-31T09:15:30.000000Z"),
        (NINE, "2026-01-31T09:00:00.000000Z"),
        (NINE, "2026-01-30T00:00:00.000000Z"),
        ("2026-13-45T99:99:99.999999Z", "2026-13-45T99:99:99.000000Z"),  # text that only looks like a time
        (150000, 150),
        (150000, "150000"),
        (0, None),
        (0, ""),
        (False, None),
        (1.5, 1.0),
    ],
)
def test_what_only_a_person_makes_of_a_value(written: Value, seen: Value) -> None:
    """An edit that comes right after our write is still an edit."""
    assert not looks_rewritten(written, seen)


TIME_LIKE = st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{15}Z", fullmatch=True)
ANY = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), TIME_LIKE)


@given(written=ANY, seen=ANY)
def test_any_two_values_can_be_asked_about(written: Value, seen: Value) -> None:
    """No text, number or half a time makes it fail, and a value is never a rewriting of its opposite kind."""
    answer = looks_rewritten(written, seen)
    assert not answer or (isinstance(written, str | None) and isinstance(seen, str | None))


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_trimming_and_collapsing_blanks_is_always_recognised(text: str) -> None:
    """Whatever the alphabet."""
    tidied = " ".join(text.split())
    assert looks_rewritten(text, tidied) or not tidied
