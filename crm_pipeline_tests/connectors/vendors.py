"""Simulated vendor accounts on real ports, and the connectors that speak to them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from crm_pipeline.connection import Connection
from crm_pipeline.connection_file import Source, validate, with_preset
from crm_pipeline.connectors import connect
from crm_pipeline.connectors.base import Connector, Record, Window
from crm_pipeline.simulators.faults import parse_faults
from crm_pipeline.simulators.serve import running
from crm_pipeline.simulators.vendor import VendorCrm, VendorOptions
from crm_pipeline.simulators.vendors import SIMULATIONS

WIDE = 1_000_000
"""A rate no test reaches."""


def preset(kind: str, url: str, **sections: Any) -> Connection:
    """A connection of a vendor's preset with something said otherwise."""
    return validate(with_preset({"type": kind, "base_url": url, **sections}), Source("test"))


class Account:
    """One simulated account and one connector."""

    def __init__(self, crm: VendorCrm, url: str, connector: Connector, waits: list[float]) -> None:
        self.crm, self.url, self.connector, self.waits = crm, url, connector, waits

    def read(self, window: Window | None = None) -> list[Record]:
        """Everything that a window holds."""
        return [record for page in self.connector.pages(window or Window()) for record in page.records]

    def ids(self, window: Window | None = None) -> list[str | None]:
        """Ids of what a window holds."""
        return [record.external_id for record in self.read(window)]


@contextlib.contextmanager
def account(
    kind: str, count: int = 0, *faults: str, sections: dict[str, Any] | None = None, **options: Any
) -> Iterator[Account]:
    """Serve an account and connect to it. Waits are noted, not waited."""
    simulation, waits = SIMULATIONS[kind], list[float]()
    made = VendorOptions(**{"burst": WIDE, "searches": WIDE, **options})
    crm = VendorCrm.seeded(simulation.vendor, count, options=made, faults=parse_faults(faults))
    with running(simulation.app(crm)) as url:
        connector = connect(preset(kind, url, **(sections or {})), "sim-key", sleep=waits.append)
        try:
            yield Account(crm, url, connector, waits)
        finally:
            connector.close()
