"""Simulated CRMs on real ports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from crm_pipeline.simulators.generic import GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline_tests.simulators.client import Client

Serve = Callable[[GenericCrm], Client]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a CRM until the test ends."""
    with ExitStack() as stack:

        def start(crm: GenericCrm) -> Client:
            client = Client(stack.enter_context(running(create_app(crm))), crm)
            stack.callback(client.session.close)
            return client

        yield start
