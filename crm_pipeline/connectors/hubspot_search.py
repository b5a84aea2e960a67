"""HubSpot's search walked to its end, past its 10,000 results and without skipping a record.

An offset counts in an order that changes while it is walked: a record that is edited moves to
the end, and the one that takes its place is skipped. So every page starts where the last one
ended, by modified time. Only inside one and the same millisecond, where imports put thousands,
offsets are used; past 10,000 of those, the record's id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from crm_pipeline.connectors.base import CrmAnswerError, Record, Resume, Window

PAGE = 200
DEPTH = 10_000
"""An offset and a page beyond it are answered 400."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Search:
    """A place in a search."""

    since: int
    """Epoch milliseconds: the page holds what was modified from then on."""
    until: int | None = None
    offset: int = 0
    last_id: str | None = None
    """Inside one millisecond past the depth: the id after which to go on."""
    seen: int = 0
    """Records of that millisecond read by id."""

    @classmethod
    def at(cls, place: Resume, window: Window) -> Search:
        """The place that ``place`` wrote down, or the start of a window."""
        until = None if window.until is None else -(-(window.until - _EPOCH) // _MILLISECOND)
        since = 0 if window.since is None else (window.since - _EPOCH) // _MILLISECOND
        return cls(
            place.get("since", since),
            until,
            place.get("offset", 0),
            place.get("last_id"),
            place.get("seen", 0),
        )

    def place(self) -> Resume:
        """As JSON."""
        return {
            "by": "search",
            "since": self.since,
            "offset": self.offset,
            "last_id": self.last_id,
            "seen": self.seen,
        }

    def body(self, properties: Sequence[str]) -> dict[str, Any]:
        """The request for the page that is due."""
        filters = [_filter("lastmodifieddate", "GTE", str(self.since))]
        order = "lastmodifieddate"
        if self.last_id is not None:
            filters = [_filter("lastmodifieddate", "EQ", str(self.since))]
            filters.append(_filter("hs_object_id", "GT", self.last_id))
            order = "hs_object_id"
        elif self.until is not None:
            filters.append(_filter("lastmodifieddate", "LT", str(self.until)))
        return {
            "filterGroups": [{"filters": filters}],
            "sorts": [{"propertyName": order, "direction": "ASCENDING"}],
            "properties": list(properties),
            "limit": PAGE,
            "after": str(self.offset),
        }

    def after(self, records: Sequence[Record], following: str | None, total: Any) -> Search | None:
        """The place after a page; None after the last.

        Raises:
            CrmAnswerError: the search does not keep to its own order.
        """
        if self.last_id is not None:
            return self._after_by_id(records, following, total)
        if following is None:
            return None
        times = [each.modified_at for each in records if each.modified_at is not None]
        if len(times) < len(records) or times != sorted(times):
            raise CrmAnswerError("a search by modified time came without times, or in another order")
        newest = (times[-1] - _EPOCH) // _MILLISECOND if times else self.since
        if newest > self.since:
            return replace(self, since=newest, offset=0)
        offset = int(following) if following.isdecimal() else self.offset + len(records)
        if offset <= self.offset:
            raise CrmAnswerError("the CRM leads back to a page already read: the listing would never end")
        if offset + PAGE > DEPTH:
            return replace(self, offset=0, last_id="0")
        return replace(self, offset=offset)

    def _after_by_id(self, records: Sequence[Record], following: str | None, total: Any) -> Search | None:
        """Go on by id; then with the next millisecond.

        Ids are compared as text in places: what that would skip is noticed by the total.
        """
        seen = self.seen + len(records)
        if following is not None and records and records[-1].external_id != self.last_id:
            return replace(self, last_id=records[-1].external_id, seen=seen)
        if isinstance(total, int) and len(records) < total:
            raise CrmAnswerError("a search by record id left records out")
        return replace(self, since=self.since + 1, offset=0, last_id=None, seen=0)


def _filter(name: str, operator: str, value: str) -> dict[str, str]:
    return {"propertyName": name, "operator": operator, "value": value}
