"""Reports as metadata: figures that Dagster can plot, and nothing about any person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from crm_pipeline.sync.reports import Report


def materialized(report: Report, **more: dg.MetadataValue[Any]) -> dg.MaterializeResult[None]:
    """Say what a step did; ``more`` is metadata of that step alone."""
    counts = report.counts.as_dict()
    metadata: dict[str, dg.MetadataValue[Any]] = {
        **{name: dg.MetadataValue.int(number) for name, number in counts.items()},
        "api_calls": dg.MetadataValue.int(report.api_calls),
        "pages": dg.MetadataValue.int(report.pages),
        "conflicts": dg.MetadataValue.int(report.conflicts),
        "pending": dg.MetadataValue.int(report.pending),
        "duration_seconds": dg.MetadataValue.float(round(report.duration_seconds, 3)),
        "preview": table({name: number for name, number in counts.items() if name != "seen"}, "outcome"),
        **more,
    }
    if report.watermark is not None:
        metadata["watermark"] = dg.MetadataValue.timestamp(report.watermark)
    if report.note:
        metadata["note"] = dg.MetadataValue.text(report.note)
    return dg.MaterializeResult(metadata=metadata)


def table(numbers: Mapping[str, int], heading: str) -> dg.TableMetadataValue:
    """Show numbers as a table of two columns, ``heading`` and ``records``."""
    rows = [dg.TableRecord({heading: name, "records": number}) for name, number in numbers.items()]
    return dg.MetadataValue.table(
        rows, schema=dg.TableSchema([dg.TableColumn(heading, "string"), dg.TableColumn("records", "int")])
    )
