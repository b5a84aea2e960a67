"""A window of modification times as query parameters, in the CRM's own format and zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from crm_pipeline.connection import Listing, TimeFilter
from crm_pipeline.connectors.base import Window

_SECOND, _MILLISECOND = timedelta(seconds=1), timedelta(milliseconds=1)
_STEPS = (timedelta(0), _SECOND, timedelta(minutes=1), timedelta(hours=1), timedelta(days=1))
"""How coarse a strftime pattern may be."""


def window_params(listing: Listing, window: Window) -> dict[str, str]:
    """Parameters that restrict a listing. What a format cannot say exactly is widened."""
    params: dict[str, str] = {}
    if listing.modified_since is not None and window.since is not None:
        params |= _param(listing.modified_since, window.since, up=False)
    if listing.modified_before is not None and window.until is not None:
        params |= _param(listing.modified_before, window.until, up=True)
    return params


def _param(rule: TimeFilter, moment: datetime, *, up: bool) -> dict[str, str]:
    return {**rule.params, rule.param: rule.template.replace("{time}", _text(rule, moment, up=up))}


def _text(rule: TimeFilter, moment: datetime, *, up: bool) -> str:
    local = moment.astimezone(ZoneInfo(rule.zone))
    if rule.format == "epoch":
        return str(_whole(moment, _SECOND, up=up))
    if rule.format == "epoch_ms":
        return str(_whole(moment, _MILLISECOND, up=up))
    if rule.format == "iso":
        return local.isoformat().removesuffix("+00:00") + ("Z" if not local.utcoffset() else "")
    return _ceiling(local, rule.format) if up else local.strftime(rule.format)


def _whole(moment: datetime, unit: timedelta, *, up: bool) -> int:
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return -(-since_epoch // unit) if up else since_epoch // unit


def _ceiling(local: datetime, pattern: str) -> str:
    """Text of the first moment not before this one that the pattern can say."""
    for step in _STEPS:
        text = (local + step).strftime(pattern)
        try:
            said = datetime.strptime(text, pattern)  # noqa: DTZ007 - compared in the zone it was made in
        except ValueError:
            continue  # a pattern that cannot be read back: the widest step stays
        if said.replace(tzinfo=local.tzinfo) >= local:
            return text
    return text
