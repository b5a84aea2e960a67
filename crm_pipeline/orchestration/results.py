"""Reports as metadata: figures that Dagster can plot, and nothing about any person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from crm_pipeline.sync.reports import Report

if TYPE_CHECKING:
    from crm_pipeline.store.rejects import Reject


def materialized(report: Report, **more: dg.MetadataValue[Any]) -> dg.MaterializeResult[None]:
    """Say what a step did; ``more`` is metadata of that step alone, or takes the place of the usual."""
    counts = report.counts.as_dict()
    metadata: dict[str, dg.MetadataValue[Any]] = {
        **{name: dg.MetadataValue.int(number) for name, number in counts.items()},
        "api_calls": dg.MetadataValue.int(report.api_calls),
        "pages": dg.MetadataValue.int(report.pages),
        "conflicts": dg.MetadataValue.int(report.conflicts),
        "pending": dg.MetadataValue.int(report.pending),
        "duration_seconds": dg.MetadataValue.float(round(report.duration_seconds, 3)),
        "preview": table("outcome", {name: number for name, number in counts.items() if name != "seen"}),
    }
    if report.watermark is not None:
        metadata["watermark"] = dg.MetadataValue.timestamp(report.watermark)
    if report.note:
        metadata["note"] = dg.MetadataValue.text(report.note)
    return dg.MaterializeResult(metadata={**metadata, **more})


def reject_table(rejects: Iterable[Reject]) -> dg.TableMetadataValue:
    """Show how many rejects there are for which field. Their reasons may come from somebody's own hook."""
    return table("field", Counter(field for reject in rejects for field in reject.reasons))


def table(heading: str, numbers: Mapping[str, int]) -> dg.TableMetadataValue:
    """Show numbers of records as a table of two columns."""
    rows = [dg.TableRecord({heading: name, "records": number}) for name, number in numbers.items()]
    return dg.MetadataValue.table(
        rows, schema=dg.TableSchema([dg.TableColumn(heading, "string"), dg.TableColumn("records", "int")])
    )
