"""HubSpot's search over an account's records: filters, one order, 10,000 results deep."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from crm_pipeline.simulators.contacts import iso
from crm_pipeline.simulators.shelf import Row
from crm_pipeline.simulators.vendor import VendorCrm

PAGE_MAX = 200
DEPTH = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME, _ID = "lastmodifieddate", "hs_object_id"
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "EQ": lambda left, right: left == right,
    "NEQ": lambda left, right: left != right,
    "LT": lambda left, right: left < right,
    "LTE": lambda left, right: left <= right,
    "GT": lambda left, right: left > right,
    "GTE": lambda left, right: left >= right,
}


class SearchError(ValueError):
    """A search HubSpot answers 400."""


def search(crm: VendorCrm, asked: dict[str, Any]) -> tuple[list[Row], int, int | None]:
    """Rows of one page, how many there are in all, and the offset of the next page."""
    limit, offset = _whole(asked.get("limit", 10)), _whole(asked.get("after") or 0)
    if not 1 <= limit <= PAGE_MAX:
        raise SearchError(f"limit must be 1 to {PAGE_MAX}")
    if offset + limit > DEPTH:
        raise SearchError(f"paging beyond {DEPTH} results is not possible")
    groups = [group.get("filters", []) for group in asked.get("filterGroups", [])] or [[]]
    rows = _matching(crm, groups)
    order, descending = _order(asked.get("sorts") or [])
    if order == _ID:
        rows = sorted(rows, key=lambda row: row.seq, reverse=descending)
    elif order == _TIME:
        rows = sorted(rows, key=lambda row: (row.updated_at, row.seq), reverse=descending)
    else:
        rows = sorted(rows, key=lambda row: row.record["created_at"])
    page = rows[offset : offset + limit]
    return page, len(rows), offset + limit if offset + limit < len(rows) else None


def _matching(crm: VendorCrm, groups: list[list[dict[str, Any]]]) -> list[Row]:
    found: dict[str, Row] = {}
    for filters in groups:
        since, until, rest = _span(filters)
        chosen = crm.shelf.changed(since, min(filter(None, [until, crm.visible_until()])))
        for row in chosen.cut(0, len(chosen)):
            if all(_holds(crm, row, each) for each in rest):
                found[row.id] = row
    return list(found.values())


def _span(filters: list[dict[str, Any]]) -> tuple[str | None, str | None, list[dict[str, Any]]]:
    """The stretch of modified times that filters ask for, and the filters that are left."""
    since, until, rest = None, None, []
    for each in filters:
        operator = str(each.get("operator"))
        if each.get("propertyName") != _TIME or operator not in {"GTE", "GT", "LTE", "LT", "EQ"}:
            rest.append(each)
            continue
        moment = _EPOCH + timedelta(milliseconds=_whole(each.get("value")))
        following = moment + timedelta(milliseconds=1)
        if operator in {"GTE", "EQ", "GT"}:
            since = max(filter(None, [since, iso(following if operator == "GT" else moment)]))
        if operator in {"LTE", "EQ", "LT"}:
            until = min(filter(None, [until, iso(moment if operator == "LT" else following)]))
    return since, until, rest


def _holds(crm: VendorCrm, row: Row, rule: dict[str, Any]) -> bool:
    name, operator, value = str(rule.get("propertyName")), str(rule.get("operator")), rule.get("value")
    own = row.seq if name == _ID else crm.fields(row).get(name)
    if operator in {"HAS_PROPERTY", "NOT_HAS_PROPERTY"}:
        return (own is not None) == (operator == "HAS_PROPERTY")
    if operator == "IN":
        return str(own).lower() in rule.get("values", [])
    if operator not in _COMPARE:
        raise SearchError(f"the operator {operator} is not known")
    if own is None:
        return False
    if name == _ID:
        return _COMPARE[operator](row.seq, _whole(value))
    return _COMPARE[operator](str(own), str(value))


def _order(sorts: list[Any]) -> tuple[str, bool]:
    if len(sorts) > 1:
        raise SearchError("only one sort is allowed")
    if not sorts:
        return "createdate", False
    sort = sorts[0]
    if isinstance(sort, str):
        return sort.removeprefix("-"), sort.startswith("-")
    return str(sort.get("propertyName")), sort.get("direction") == "DESCENDING"


def _whole(value: Any) -> int:
    text = str(value)
    if not text.isdecimal():
        raise SearchError("a whole number is needed")
    return int(text)
