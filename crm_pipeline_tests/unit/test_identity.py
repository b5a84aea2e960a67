"""Identity: one person is one id, in every spelling; and nobody is invented."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from crm_pipeline.sync.identity import NoIdentityError, is_address, spellings, whatsapp_id

BUDI = "628123456789@c.us"
CANONICAL = re.compile(r"[1-9][0-9]{6,14}@c\.us|[0-9]{5,20}@lid")


@pytest.mark.parametrize(
    "spelling",
    [
        "628123456789@c.us",
        "628123456789",
        "+628123456789",
        "+62 8123456789",
        "+62 812-3456-789",
        "62-8123456789",
        "62 812 3456 789",
        "08123456789",
        "0812-3456-789",
        "0812 3456 789",
        "0812.3456.789",
        "(0812) 3456 789",
        "(+62) 812 3456789",
        "+(62) 812 3456789",
        "+ 62 812 3456 789",
        "( +62 ) 812 3456 789",
        "+62 (0)812 3456 789",
        "00628123456789",
        "6208123456789",  # the zero of a number at home left in
        "8123456789",  # the zero dropped, as spreadsheets do
        "628123456789.0",  # a spreadsheet's whole number
        "08123456789@c.us",
        "6208123456789@c.us",
        "+62 812-3456-789@c.us",  # what a form makes of a number typed by hand
        "628123456789@C.US",
        "628123456789@s.whatsapp.net",
        "628123456789:12@s.whatsapp.net",  # one of the person's devices
        "628123456789:90@s.whatsapp.net",
        "  628123456789@c.us \r\n",
        "0812\t3456\u00a0789",
        "+62\u2011812\u20133456\u2014789",  # other hyphens and dashes
        "\u202a+62 812-3456-789\u202c",  # copied from an address book
        "\ufeff0812\u200b3456789",
    ],
)
def test_every_spelling_is_one_contact(spelling: str) -> None:
    """However the number is written down, it is the same person."""
    assert whatsapp_id(spelling) == BUDI


def test_a_last_group_of_one_zero_is_part_of_the_number() -> None:
    """Only a whole number with nothing but digits before ``.0`` is a spreadsheet's."""
    assert whatsapp_id("0812.345.678.0") == "628123456780@c.us"
    assert whatsapp_id("6281100000001.0") == "6281100000001@c.us"


def test_a_spelling_may_be_long_but_not_endless() -> None:
    """Up to 64 characters; more would only fill the memory of those already seen."""
    assert whatsapp_id("0812" + "3456789".rjust(60)) == BUDI
    with pytest.raises(NoIdentityError, match="too long"):
        whatsapp_id("0812" + "3456789".rjust(61))


@pytest.mark.parametrize(
    "spelling, known_as",
    [
        ("+65 9123 4567", "6591234567@c.us"),
        ("6591234567", "6591234567@c.us"),
        ("+1 (202) 555-0123", "12025550123@c.us"),
        ("12025550123", "12025550123@c.us"),
        ("+44 7911 123456", "447911123456@c.us"),
        ("+44 (0)7911 123456", "447911123456@c.us"),
        ("0044 7911 123456", "447911123456@c.us"),
        ("+39 06 1234 5678", "390612345678@c.us"),  # Italy keeps its zero
        ("+49 1512 3456789", "4915123456789@c.us"),
        ("5215512345678@c.us", "5215512345678@c.us"),  # what WhatsApp calls a number of Mexico
        ("85212345678@c.us", "85212345678@c.us"),
    ],
)
def test_numbers_of_other_countries(spelling: str, known_as: str) -> None:
    """A number with its country code is taken as it is, and an id of WhatsApp's own always."""
    assert whatsapp_id(spelling) == known_as


@pytest.mark.parametrize(
    "spelling, region, known_as",
    [
        ("07911 123456", "GB", "447911123456@c.us"),
        ("7911 123456", "GB", "447911123456@c.us"),
        ("(415) 555-2671", "US", "14155552671@c.us"),
        ("4155552671", "US", "14155552671@c.us"),
        ("91234567", "SG", "6591234567@c.us"),
        ("9123456789", "IN", "919123456789@c.us"),  # begins like India's country code, which is 91
        ("919123456789", "IN", "919123456789@c.us"),
        ("3921234567", "IT", "393921234567@c.us"),
        ("08123456789", "ID", BUDI),
        ("628123456789", "GB", BUDI),
        ("(021) 5551 2345", "ID", "622155512345@c.us"),  # a business on its landline
    ],
)
def test_national_numbers_are_of_the_default_region(spelling: str, region: str, known_as: str) -> None:
    """Without a country code, a number is one at home."""
    assert whatsapp_id(spelling, region) == known_as


@pytest.mark.parametrize("lid", ["123456789012345@lid", "62812345678@lid", " 123456789012345@LID "])
def test_a_lid_stays_a_lid(lid: str) -> None:
    """It carries no phone number, whatever its digits look like."""
    found = whatsapp_id(lid)
    assert found == lid.strip().lower()


@pytest.mark.parametrize(
    "address",
    [f"{digit}000000@c.us" for digit in "123456789"]
    + [f"{digit}99999999999999@c.us" for digit in "123456789"]
    + [f"{digit * count}@lid" for digit in "0123456789" for count in (5, 20)],
)
def test_an_id_of_whatsapps_own_is_taken_as_it_is(address: str) -> None:
    """Of 7 to 15 digits, a lid of 5 to 20, whether or not a phone could have that number."""
    assert whatsapp_id(address) == address
    assert is_address(address)


@pytest.mark.parametrize("text", ["100000@c.us", f"{10**15}@c.us", "1234@lid", f"{10**20}@lid"])
def test_an_id_shorter_or_longer_than_whatsapps_is_none(text: str) -> None:
    """Nothing is cut off, and nothing filled in."""
    assert known_as(text) is None
    assert not is_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "r1",
        "08123456789",
        "628123456789",
        "628123456789@C.US",
        "6208123456789@c.us",
        "123456@LID",
        "1@g.us",
    ],
)
def test_only_the_one_spelling_is_an_address(text: str) -> None:
    """A record's own id is none, nor is a number that could become one."""
    assert not is_address(text)


INVISIBLE = "\u00ad\ufeff" + "".join(
    chr(point)
    for first, last in ((0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x2069))
    for point in range(first, last + 1)
)


@pytest.mark.parametrize("mark", INVISIBLE, ids=ascii)
def test_a_mark_nobody_sees_is_no_part_of_a_number(mark: str) -> None:
    """Soft hyphens, joiners, writing directions: they come along when a number is copied."""
    assert whatsapp_id(f"{mark}0812{mark}3456789") == BUDI


@pytest.mark.parametrize("dash", "\u2010\u2011\u2012\u2013\u2014\u2015-", ids=ascii)
def test_any_dash_may_stand_in_a_number(dash: str) -> None:
    """As word processors put them."""
    assert whatsapp_id(f"0812{dash}3456{dash}789") == BUDI


@pytest.mark.parametrize("group", ["120363041234567890@g.us", "628123456789-1612345678@g.us", "1@G.US "])
def test_a_group_is_refused(group: str) -> None:
    """A group is no contact."""
    with pytest.raises(NoIdentityError, match=r"^is a group, not a contact$"):
        whatsapp_id(group)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "   ",
        "abc",
        "unknown_3@c.us",
        "unknown_3",
        "status@broadcast",
        "123456789012345@newsletter",
        "budi@example.com",
        "123456789012345@lid@c.us",
        "628123456789@c.us@c.us",
        "@c.us",
        "@lid",
        "+",
        "()",
        "-628123456789",
        "++628123456789",
        "62812+3456789",
        "6281234567_89",
        "0812x3456789",
        "8.123456789E+9",
        "0812 345 678 (WA)",
        "08123456789 ext. 5",
        "0812\u0663456789",  # an Arabic three
        "\uff10\uff18\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19",  # full-width digits
        "08123456789\x00",
        "08123456789\ud800",
        "021 5551234/5",  # two numbers: put together they would be a third
        "08123456789 / 08134567890",
        "0812" + " " * 100 + "3456789",
    ],
)
def test_what_is_no_number_is_refused(value: str) -> None:
    """The reason says so and repeats nothing of the value, which may be anybody's."""
    with pytest.raises(NoIdentityError, match=r"^is (not|too long for) a WhatsApp id or phone number$"):
        whatsapp_id(value)


@pytest.mark.parametrize(
    "value",
    [
        "5",
        "12345",
        "500123",
        "1234567",
        "0812",
        "6281234",
        "+49123",
        "000000000",
        "+0812345678",
        "6281111111111111",
        "6262626262626262",
        "+999999999999999",
        "0812345678908134567890",
    ],
)
def test_impossible_numbers_are_refused(value: str) -> None:
    """Too short, too long, no such country, or to be dialled in its own town only: no id is made up."""
    with pytest.raises(NoIdentityError, match=r"^is not a possible phone number$"):
        whatsapp_id(value)


def known_as(raw: str, region: str = "ID") -> str | None:
    """The id, or None where there is none."""
    try:
        return whatsapp_id(raw, region)
    except NoIdentityError:
        return None


BLANKS = st.sampled_from(["", "", " ", "-", ".", "\u00a0", "\u2011"])


@st.composite
def spelled(draw: st.DrawFn, digits: str) -> str:
    """Digits with punctuation between them; a lone dot and zero at the end is a spreadsheet's fraction."""
    text = digits[0] + "".join(draw(BLANKS) + digit for digit in digits[1:])
    return f"{text[:-2]}{text[-1]}" if text.endswith(".0") else text


@given(data=st.data(), subscriber=st.from_regex(r"8[1-35-9][0-9]{7,9}", fullmatch=True))
def test_any_punctuation_of_an_indonesian_mobile_is_one_id(data: st.DataObject, subscriber: str) -> None:
    """Country code, zero or neither; dashes, dots and blanks anywhere: one id."""
    before = data.draw(st.sampled_from(["+62", "62", "0", "0062", "(0)", "+62 (0)", "(+62) ", "+ 62-"]))
    after = data.draw(st.sampled_from(["", " ", "@c.us", "@C.US", "@s.whatsapp.net", ":3@s.whatsapp.net"]))
    assert whatsapp_id(before + data.draw(spelled(subscriber)) + after) == f"62{subscriber}@c.us"


PHONE_LIKE = st.text(st.sampled_from("0123456789012345678962+()-. /@cuslid\u202a\u00a0"), max_size=30)
PHONES = st.from_regex(r"\+?(62|0|1|44|65|8)[0-9]{4}[0-9 -]{2,10}(@c\.us)?", fullmatch=True)
REGIONS = st.sampled_from(["ID", "US", "GB", "SG", "DE", "IT", "MX", "NU"])


@given(raw=st.one_of(PHONES, PHONE_LIKE, st.text(max_size=30)), region=REGIONS)
@example(raw="+683 4567", region="NU")
@example(raw="620 812 3456 789", region="ID")
def test_an_id_is_canonical_or_there_is_none(raw: str, region: str) -> None:
    """Any text gives an id of the one form or NoIdentityError, and the id of an id is itself."""
    found = known_as(raw, region)
    assert found is None or CANONICAL.fullmatch(found)
    assert found is None or whatsapp_id(found, region) == found


@given(raw=PHONES, region=REGIONS)
def test_no_digit_is_invented(raw: str, region: str) -> None:
    """An id ends as the number that was given ends; only what stands before may be completed."""
    found = known_as(raw, region)
    assume(found is not None)
    given_digits = re.sub(r"[^0-9]", "", raw)
    kept = re.sub(r"[^0-9]", "", str(found))
    assert given_digits.endswith(kept[-4:])
    assert kept.endswith(given_digits.lstrip("0")[-4:])


@given(raw=st.from_regex(r"(\+|0|62)[0-9]{6,15}", fullmatch=True))
def test_a_number_and_its_whatsapp_address_are_one(raw: str) -> None:
    """``628…`` and ``628…@c.us`` never become two contacts."""
    bare, address = known_as(raw), known_as(f"{raw}@c.us")
    assume(bare is not None and address is not None)
    assert bare == address


@pytest.mark.parametrize(
    "known_as,region,written",
    [
        ("6281100000001@c.us", "ID", ("6281100000001", "+6281100000001", "081100000001")),
        ("6281100000001@c.us", "SG", ("6281100000001", "+6281100000001")),
        ("6591234567@c.us", "SG", ("6591234567", "+6591234567", "91234567")),
        ("99912345678@c.us", "ID", ("99912345678", "+99912345678")),
        ("81200000001@lid", "ID", ()),
    ],
)
def test_what_a_search_is_tried_with(known_as: str, region: str, written: tuple[str, ...]) -> None:
    """The id, its digits, with a plus, and as it is dialled at home; of a lid nothing else is known."""
    assert spellings(known_as, region) == (known_as, *written)
