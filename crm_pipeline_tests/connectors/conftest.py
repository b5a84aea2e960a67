"""Servers and connections for connector tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crm_pipeline.connection import Connection
from crm_pipeline.connectors.rest import RestConnector
from crm_pipeline.connectors.session import Session
from crm_pipeline_tests.connectors.servers import Server, serving

KEY = "top-secret-key"

Serve = Callable[..., Server]
MakeSession = Callable[..., Session]
Connect = Callable[..., RestConnector]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers; they stop with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda answer, **more: stack.enter_context(serving(answer, **more))


@pytest.fixture
def waits() -> list[float]:
    """Seconds the session would have slept."""
    return []


@pytest.fixture
def session(waits: list[float]) -> Iterator[MakeSession]:
    """Make sessions without real waiting and without jitter; they close with the test."""
    with contextlib.ExitStack() as stack:

        def make(url: str, key: str | None = KEY, **sections: Any) -> Session:
            made = Session(Connection(base_url=url, **sections), key, sleep=waits.append, chance=lambda: 0.0)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def connector(session: MakeSession) -> Connect:
    """Make connectors over such sessions."""

    def make(url: str, **sections: Any) -> RestConnector:
        return RestConnector(Connection(base_url=url, **sections), session(url, **sections))

    return make
