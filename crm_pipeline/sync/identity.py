"""Identity: every spelling of a WhatsApp id becomes the one it is known by."""

from __future__ import annotations

import re
from functools import lru_cache

_CANONICAL = re.compile(r"(?!620)[1-9][0-9]{6,14}@c\.us")
"""What every phone becomes. 620 is a country code with the zero of a number at home left in."""
_LID = re.compile(r"[0-9]{5,20}@lid")
_SERVER = re.compile(r"(?::[0-9]+)?@(?:c\.us|s\.whatsapp\.net)\Z")
_PHONE_CHARACTERS = re.compile(r"[\s(]*\+?[\s(]*[0-9][0-9\s().\u2010-\u2015-]*")
"""No slash: it stands between two numbers, or between a number and the last digit of the next."""
_WHOLE_NUMBER = re.compile(r"[0-9]+\.0")
"""How a spreadsheet writes one: that zero is no digit of the phone."""
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Marks of writing direction and the like, which come along when a number is copied."""
_NOT_DIGITS = re.compile(r"[^0-9]")
_LONGEST = 64
"""Characters. No spelling of a number is longer."""


class NoIdentityError(ValueError):
    """A value is no WhatsApp id; the text says why, without the value."""


def whatsapp_id(raw: str, region: str = "ID") -> str:
    """The one id of a contact: ``<digits>@c.us``, or ``<digits>@lid`` as it came.

    ``raw`` may be any spelling people and programs use: ``628…@c.us``, ``628…``,
    ``+62 8…``, ``08…``, ``62-8…``. National numbers are taken as of ``region``.
    Giving the result again gives the same result.
    A lid carries no phone number and is never turned into one.

    Raises:
        NoIdentityError: a group, a broadcast list, no phone number at all.
    """
    # Not kept: that takes more time than a look, and hundreds of bytes for each.
    return raw if _CANONICAL.fullmatch(raw) else _canonical(raw, region)


@lru_cache(maxsize=65_536)
def _canonical(raw: str, region: str) -> str:
    if len(raw) > _LONGEST:
        msg = "is too long for a WhatsApp id or phone number"
        raise NoIdentityError(msg)
    text = _INVISIBLE.sub("", raw).strip().lower()
    if _LID.fullmatch(text):
        return text
    if text.endswith("@g.us"):
        msg = "is a group, not a contact"
        raise NoIdentityError(msg)
    phone = _SERVER.sub("", text)
    if _WHOLE_NUMBER.fullmatch(phone):
        phone = phone.removesuffix(".0")
    if not _PHONE_CHARACTERS.fullmatch(phone):
        msg = "is not a WhatsApp id or phone number"
        raise NoIdentityError(msg)
    return _phone(phone, region)


def spellings(canonical: str, region: str) -> tuple[str, ...]:
    """How others may write a canonical id, without blanks: what a search for it is tried with."""
    if not _CANONICAL.fullmatch(canonical):
        return (canonical,)
    import phonenumbers  # noqa: PLC0415 - as below

    digits = canonical.removesuffix("@c.us")
    found = (canonical, digits, f"+{digits}")
    try:
        number = phonenumbers.parse(f"+{digits}")
    except phonenumbers.NumberParseException:
        return found  # an id of WhatsApp's own, of no country
    if phonenumbers.region_code_for_number(number) != region:
        return found
    national = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
    return (*found, _NOT_DIGITS.sub("", national))


def is_address(text: str) -> bool:
    """Whether a text is a canonical WhatsApp id: the name of a record that has none of its own."""
    return bool(_CANONICAL.fullmatch(text) or _LID.fullmatch(text))


def _phone(text: str, region: str) -> str:
    digits = _NOT_DIGITS.sub("", text)
    if "+" in text:
        found = _e164(f"+{digits}")
    elif digits.startswith("00"):
        found = _e164(f"+{digits[2:]}")
    elif digits.startswith("0"):
        found = _e164(digits, region)
    else:
        found = _bare(digits, region)
    if found is None or not _CANONICAL.fullmatch(f"{found}@c.us"):
        msg = "is not a possible phone number"
        raise NoIdentityError(msg)
    return f"{found}@c.us"


def _bare(digits: str, region: str) -> str | None:
    """Read digits that say neither ``+`` nor ``0``.

    They are international, unless the zero of a mobile number at home was dropped,
    as spreadsheets do. Beginning like the country code proves nothing: 9123456789 is
    a mobile number of India (91), and lacks its country code.
    """
    return _e164(digits, region, mobile=True) or _e164(f"+{digits}")


def _e164(text: str, region: str | None = None, *, mobile: bool = False) -> str | None:
    import phonenumbers  # noqa: PLC0415 - half a second of metadata, needed only for odd spellings

    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None  # also of a number that can be dialled from its own town only
    kinds = phonenumbers.PhoneNumberType
    if mobile and phonenumbers.number_type(number) not in {kinds.MOBILE, kinds.FIXED_LINE_OR_MOBILE}:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164).removeprefix("+")
