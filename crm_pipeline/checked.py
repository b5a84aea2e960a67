"""Checked texts: a CRM's address, a time zone, a region, wherever they are configured."""

from __future__ import annotations

import ipaddress
from typing import Annotated
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

CRM_URL_FORM = (
    "must be an absolute https URL (http only for a loopback host) "
    "without user name, password, query or fragment"
)
ZONE_FORM = "must be a time zone name such as UTC or Asia/Jakarta"
REGION_FORM = "must be a two-letter country code such as ID"


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_crm_url(text: str) -> str:
    """Return the URL, or raise ``ValueError`` saying what it must be. Never repeats the URL."""
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError(CRM_URL_FORM)
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        port_is_usable = parts.port != 0  # reading it checks it
    except ValueError:
        raise ValueError(CRM_URL_FORM) from None
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    if not (secure and host and port_is_usable and _is_bare(text, parts)):
        raise ValueError(CRM_URL_FORM)
    return text


def _is_bare(text: str, parts: SplitResult) -> bool:
    """Query parameters belong to ``listing.params``, credentials to ``auth``: both may be secret."""
    return "@" not in parts.netloc and "?" not in text and "#" not in text


def check_zone(text: str) -> str:
    """Return the zone's name, or raise ``ValueError``."""
    try:
        ZoneInfo(text)
    except (ValueError, OSError, KeyError):  # odd characters, a folder of zones, unknown
        raise ValueError(ZONE_FORM) from None
    return text


def check_region(text: str) -> str:
    """Return the region in capitals, or raise ``ValueError`` where no such country has phones."""
    import phonenumbers  # noqa: PLC0415 - slow to import, and seldom asked

    if text.upper() not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError(REGION_FORM)
    return text.upper()


CrmUrl = Annotated[str, AfterValidator(check_crm_url)]
ZoneName = Annotated[str, AfterValidator(check_zone)]
Region = Annotated[str, AfterValidator(check_region)]
