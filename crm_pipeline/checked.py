"""Checked texts, wherever they are configured: addresses, time zones, paths, headers' names."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, SecretStr

CRM_URL_FORM = (
    "must be an absolute https URL (http only for a loopback host) "
    "without user name, password, query or fragment"
)
ZONE_FORM = "must be a time zone name such as UTC or Asia/Jakarta"
PATH_FORM = "must be names joined by single dots, such as data.items or phones[type=work].number"
HEADER_FORM = "must be the name of an HTTP header, such as X-Key"
PATTERN_FORM = "must be 'iso' or a strftime pattern, such as %Y-%m-%d %H:%M:%S"
REGION_FORM = "must be a two-letter country code such as ID"
HOOK_FORM = "must be an absolute https URL (http only for a loopback host)"
SMTP_FORM = "must be smtp://host:port or smtps://host:port, with user:password@ before the host where it asks"
MAIL_FORM = "must be mail addresses, comma separated"
_MAIL = re.compile(r"[^\s@,<>]+@[^\s@,<>]+")


def check_hook(text: str) -> str:
    """Return the URL of a receiver, which may hold its secret, or raise ``ValueError``. Never repeats it."""
    try:
        parts = urlsplit(text)
        host, port_is_usable = parts.hostname or "", parts.port != 0
    except ValueError:
        raise ValueError(HOOK_FORM) from None
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    if not (secure and host and port_is_usable and text.isascii() and text.isprintable()):
        raise ValueError(HOOK_FORM)
    return text


def check_smtp(text: str) -> str:
    """Return the URL of a mail server, or raise ``ValueError``. Never repeats it."""
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and parts.port != 0 and parts.path in {"", "/"}
    except ValueError:
        raise ValueError(SMTP_FORM) from None
    if parts.scheme not in {"smtp", "smtps"} or not usable or "?" in text or "#" in text:
        raise ValueError(SMTP_FORM)
    return text


def check_mail(text: str) -> str:
    """Return a mail address, or raise ``ValueError``."""
    if not _MAIL.fullmatch(text):
        raise ValueError(MAIL_FORM)
    return text


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


def check_path(text: str) -> str:
    """Return a path into a JSON document, or raise ``ValueError``."""
    keys = _SELECTED.sub("", text)
    if not all(keys.split(".")) or text != text.strip() or keys.count("[") != keys.count("]"):
        raise ValueError(PATH_FORM)
    return text


def check_header(text: str) -> str:
    """Return the name of an HTTP header, or raise ``ValueError``."""
    if not _TOKEN.fullmatch(text):
        raise ValueError(HEADER_FORM)
    return text


def check_pattern(text: str) -> str:
    """Return a time's form, ``iso`` or a strftime pattern, or raise ``ValueError``."""
    if text != "iso" and not _PATTERN.fullmatch(text):
        raise ValueError(PATTERN_FORM)
    return text


def check_filter_form(text: str) -> str:
    """Return a form that a filter's time may have, or raise ``ValueError``."""
    return text if text in {"epoch", "epoch_ms"} else check_pattern(text)


def check_fixed(text: str) -> str:
    """Return a URL's path that has no place for anything, or raise ``ValueError``."""
    if _PLACE.search(text):
        raise ValueError("must not hold a place such as {id}: it is the same for all records")
    return text


def check_with_id(text: str) -> str:
    """Return a URL's path whose only place is ``{id}``, or raise ``ValueError``."""
    if set(_PLACE.findall(text)) - {"{id}"}:
        raise ValueError("may hold {id}, and no other place")
    return text


_SELECTED = re.compile(r"(?<=[^.\[\]])\[[^\[\]=]+=[^\[\]]+\](?=\.|$)")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DIRECTIVE = "%-?[aAbBcdDeFfGgHIjklmMpRSTuUVwWxXyYzZ%]"
_PATTERN = re.compile(rf"[^%]*{_DIRECTIVE}(?:[^%]|{_DIRECTIVE})*")
_PLACE = re.compile(r"\{[^{}]*\}")
CrmUrl = Annotated[str, AfterValidator(check_crm_url)]
ZoneName = Annotated[str, AfterValidator(check_zone)]
Region = Annotated[str, AfterValidator(check_region)]
MailAddress = Annotated[str, AfterValidator(check_mail)]
Hook = Annotated[SecretStr, AfterValidator(lambda url: SecretStr(check_hook(url.get_secret_value())))]
SmtpServer = Annotated[SecretStr, AfterValidator(lambda url: SecretStr(check_smtp(url.get_secret_value())))]
DottedPath = Annotated[str, AfterValidator(check_path)]
HeaderName = Annotated[str, AfterValidator(check_header)]
TimeForm = Annotated[str, AfterValidator(check_pattern)]
FilterTimeForm = Annotated[str, AfterValidator(check_filter_form)]
FixedUrlPath = Annotated[str, AfterValidator(check_fixed)]
UrlPathWithId = Annotated[str, AfterValidator(check_with_id)]
