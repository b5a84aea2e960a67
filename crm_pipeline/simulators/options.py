"""How a simulated CRM behaves when nothing goes wrong: its options, page styles and envelopes."""

from __future__ import annotations

from dataclasses import dataclass, field

from crm_pipeline.simulators.rewrite import Rewrite

STYLES = ("page", "offset", "cursor", "next_link", "link_header", "header_cursor", "none")
"""Ways from one page to the next; ``paging`` explains them."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Where a listing's body holds what: dotted paths. Without ``records`` it is a bare array."""

    records: str
    total: str = "total"
    cursor: str = "next_cursor"
    next: str = "next"
    drop_end: bool = False
    """On the last page the key is missing, where others say null."""


ENVELOPES: dict[str, Envelope] = {
    "records": Envelope("records"),
    "data": Envelope("data", "meta.total", "meta.next_cursor", "links.next"),
    "results": Envelope("results", "count"),
    "items": Envelope("items"),
    "contacts": Envelope("contacts", "total", "paging.next.after", "paging.next.link", drop_end=True),
    "hal": Envelope(
        "_embedded.contacts", "page.total", "page.next_cursor", "_links.next.href", drop_end=True
    ),
    "jsonapi": Envelope("data", "meta.total", "meta.next_cursor", "links.next"),
    "array": Envelope(""),
}


def check_listing(style: str, envelope: str) -> None:
    """Raise ``ValueError`` for a page style or an envelope that is unknown, or two that do not fit."""
    for name, value, known in (("pagination", style, STYLES), ("envelope", envelope, tuple(ENVELOPES))):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}")
    if envelope == "array" and style in {"cursor", "next_link"}:
        raise ValueError(f"a bare array has no place for the pagination {style}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CrmOptions:
    """The habits of one CRM account. ``ValueError`` when they do not fit together."""

    api_key: str = "sim-key"
    """Bearer key that every ``/api`` request needs."""
    pagination: str = "cursor"
    """One of ``STYLES``; a request may ask for another with ``?pagination=``."""
    envelope: str = "records"
    """One of ``ENVELOPES``; a request may ask for another with ``?envelope=``."""
    page_size: int = 100
    page_size_max: int = 1000
    """Larger pages are not refused but cut to this."""
    relative_links: bool = False
    """Links to the next page carry no scheme and host."""
    wrap: str = ""
    """Key around a single record, in requests and answers; ``data`` for ``jsonapi``."""
    batch_limit: int = 100
    unique: str = "phone"
    """Attribute that ``GET /api/contacts?<unique>=`` finds records by."""
    search_lag: float = 0.0
    """Seconds until such a lookup finds a value newly given to a record."""
    unique_enforced: bool = False
    """A write that would give two records the same unique value is refused with 409."""
    idempotency: bool = False
    """An ``Idempotency-Key`` seen before on a POST repeats the first answer and does nothing."""
    rewrite: Rewrite = field(default_factory=Rewrite)
    webhooks_to: str = ""
    """URL that is told of every creation and change."""
    webhook_secret: str = ""
    """Travels in the body as ``secret``."""
    webhook_api_key: str = ""
    """Travels as ``X-API-Key``."""

    def __post_init__(self) -> None:
        """Check what could only fail later, in the middle of a request."""
        check_listing(self.pagination, self.envelope)
        if min(self.page_size, self.page_size_max, self.batch_limit) < 1:
            raise ValueError("page_size, page_size_max and batch_limit must be at least 1")
