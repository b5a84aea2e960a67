"""Writes to try a connector with, and the names of what becomes of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from crm_pipeline.connectors.base import Write, WriteResult, WriteStatus

WRITTEN, REFUSED, FAILED = WriteStatus.WRITTEN, WriteStatus.REFUSED, WriteStatus.FAILED
GONE, UNKNOWN = WriteStatus.GONE, WriteStatus.UNKNOWN
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


def create(key: str = "k1", **changes: Any) -> Write:
    """A new record."""
    return Write(key, None, changes or {"name": "budi"})


def update(external_id: str = "7", expected: datetime | None = None, **changes: Any) -> Write:
    """A changed record."""
    return Write(f"u{external_id}", external_id, changes or {"name": "budi"}, expected)


def statuses(results: list[WriteResult]) -> list[WriteStatus]:
    """What became of each."""
    return [result.status for result in results]
