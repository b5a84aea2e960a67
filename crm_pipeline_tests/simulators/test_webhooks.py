"""Telling a receiver of changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from crm_pipeline.simulators.generic import CrmOptions, GenericCrm
from crm_pipeline.simulators.serve import running
from crm_pipeline_tests.simulators.conftest import Serve


@dataclass
class Receiver:
    """Keeps what it is sent and answers as told."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    """Answers still to give; then 200."""
    received: list[tuple[str | None, dict[str, Any]]] = field(default_factory=list)

    async def hook(self, request: Request) -> Response:
        """One delivery."""
        self.received.append((request.headers.get("X-API-Key"), await request.json()))
        return Response(status_code=self.statuses.pop(0) if self.statuses else 200)

    def crm(self, contacts: int) -> GenericCrm:
        """A CRM that reports here."""
        options = CrmOptions(webhooks_to=self.url, webhook_secret="s3cret", webhook_api_key="k3y")
        return GenericCrm.seeded(contacts, options=options)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on a port of its own."""
    found = Receiver()
    with running(Starlette(routes=[Route("/hook", found.hook, methods=["POST"])])) as base:
        found.url = f"{base}/hook"
        yield found


def test_every_change_is_told_in_order(serve: Serve, receiver: Receiver) -> None:
    """Changes by people and by the API arrive as the guide's object with its secret and key."""
    client = serve(receiver.crm(2))
    client.crm.edit("100001", notes="by a person")
    client.call("POST", json={"phone": "6281009999999@c.us"})
    assert client.crm.webhooks
    assert client.crm.webhooks.wait_idle(5)
    assert [key for key, _ in receiver.received] == ["k3y", "k3y"]
    records = client.crm.records
    assert [body for _, body in receiver.received] == [
        {"secret": "s3cret"} | records["100001"],
        {"secret": "s3cret"} | records["100003"],
    ]
    assert client.crm.stats()["webhooks"] == {"delivered": 2, "failed": 0, "pending": 0}


def test_a_passing_failure_is_repeated_and_a_refusal_is_not(serve: Serve, receiver: Receiver) -> None:
    """503 is tried again; 422 counts as failed at once, and the next change still arrives."""
    client = serve(receiver.crm(2))
    receiver.statuses = [503, 200, 422]
    for notes in ("first", "second", "third"):
        client.crm.edit("100001", notes=notes)
    assert client.crm.webhooks
    assert client.crm.webhooks.wait_idle(5)
    assert [body["notes"] for _, body in receiver.received] == ["first", "first", "second", "third"]
    assert client.crm.stats()["webhooks"] == {"delivered": 2, "failed": 1, "pending": 0}


def test_a_receiver_that_is_away_does_not_hold_up_the_end(serve: Serve) -> None:
    """The CRM stops while a delivery is being repeated; what was not delivered stays counted."""
    options = CrmOptions(webhooks_to="http://127.0.0.1:9/hook")
    client = serve(GenericCrm.seeded(1, options=options))
    client.crm.edit("100001", notes="x")
    assert client.crm.webhooks
    client.crm.webhooks.stop()
    stats = client.crm.webhooks.stats()
    assert stats["delivered"] == 0
    assert stats["failed"] + stats["pending"] == 1
