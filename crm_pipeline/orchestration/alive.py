"""Signs of life: each step of a run holds a lease named after it, so that its worker's death can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from crm_pipeline import instants
from crm_pipeline.store import leases
from crm_pipeline.store.engine import writing
from crm_pipeline.store.keeping import kept

PREFIX = "run/"
BETWEEN_STEPS = timedelta(minutes=5)
"""How long a run may be without a step of ours: while it begins, ends, or checks something."""


@contextmanager
def sign_of_life(engine: Engine, run_id: str) -> Iterator[None]:
    """Show that a run's worker lives while the block lasts, and for some minutes after it."""
    name, holder = f"{PREFIX}{run_id}", leases.new_holder(run_id)
    with writing(engine) as tx:
        leases.take(tx, name, holder, instants.now())
    try:
        with kept(engine, name, holder, instants.now):
            yield
    finally:
        with suppress(OperationalError), writing(engine) as tx:  # what fails here must not hide what failed
            leases.renew(tx, name, holder, instants.now(), BETWEEN_STEPS)
