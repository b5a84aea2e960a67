"""The vendors that can be simulated, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from starlette.types import ASGIApp

from crm_pipeline.simulators import hubspot, salesforce, zoho
from crm_pipeline.simulators.faults import parse_faults
from crm_pipeline.simulators.hubspot_rules import VENDOR as HUBSPOT
from crm_pipeline.simulators.salesforce_rules import VENDOR as SALESFORCE
from crm_pipeline.simulators.serve import serve_forever
from crm_pipeline.simulators.vendor import Vendor, VendorCrm, VendorOptions
from crm_pipeline.simulators.zoho_rules import VENDOR as ZOHO


@dataclass(frozen=True, slots=True)
class Simulation:
    """How one vendor is simulated."""

    vendor: Vendor
    app: Callable[[VendorCrm], ASGIApp]


SIMULATIONS: dict[str, Simulation] = {
    "hubspot": Simulation(HUBSPOT, hubspot.create_app),
    "salesforce": Simulation(SALESFORCE, salesforce.create_app),
    "zoho": Simulation(ZOHO, zoho.create_app),
}


def run_vendor(  # noqa: PLR0913 - one keyword for each option of the command line
    name: str,
    *,
    contacts: int = 1000,
    seed: int = 1,
    days: float = 30.0,
    host: str = "127.0.0.1",
    port: int = 8808,
    options: VendorOptions | None = None,
    faults: Iterable[str] = (),
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Run a vendor's simulated account in the foreground until SIGINT or SIGTERM.

    Raises:
        ValueError: a fault is spelt wrongly; nothing was started.
        OSError: the address cannot be used.
    """
    simulation, parsed = SIMULATIONS[name], parse_faults(faults, seed=seed)
    crm = VendorCrm.seeded(simulation.vendor, contacts, seed=seed, days=days, options=options, faults=parsed)
    serve_forever(simulation.app(crm), host=host, port=port, on_ready=on_ready)
