"""Steering and watching a simulated CRM from another process on the same machine."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import asdict
from ipaddress import ip_address
from typing import Any, Protocol

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from crm_pipeline.simulators.answers import guarded, json_answer, json_body, object_of
from crm_pipeline.simulators.crm import LoggedWrite, RefusedError
from crm_pipeline.simulators.faults import FaultError, Faults, parse_faults


class Steered(Protocol):
    """What is steered and watched of a CRM."""

    faults: Faults

    @property
    def lock(self) -> threading.RLock:
        """Held while it changes."""

    @property
    def log(self) -> Iterable[LoggedWrite]:
        """Writes as received."""

    @property
    def broken(self) -> dict[str, str]:
        """Ids handed out broken, and how."""

    def stats(self) -> dict[str, Any]:
        """Everything countable."""

    def create(self, /, **fields: Any) -> dict[str, Any]:
        """Add a record."""

    def edit(self, record_id: str, /, **fields: Any) -> dict[str, Any]:
        """Change a record."""

    def delete(self, record_id: str) -> None:
        """Remove a record."""


def control_routes(crm: Steered) -> list[Route]:
    """The ``/sim`` endpoints; none needs a key, all refuse callers that are not on this machine."""
    control = _Control(crm)
    gets = {"stats": control.stats, "log": control.log, "broken": control.broken}
    posts = {"edit": control.edit, "faults": control.faults}
    return [
        *(Route(f"/sim/{name}", guarded(_local_only, call), methods=["GET"]) for name, call in gets.items()),
        *(
            Route(f"/sim/{name}", guarded(_local_only, call), methods=["POST"])
            for name, call in posts.items()
        ),
    ]


def _local_only(request: Request) -> None:
    if request.client is None or not ip_address(request.client.host).is_loopback:
        raise RefusedError(403, "forbidden", "Only this machine may steer the simulator.")


class _Control:
    def __init__(self, crm: Steered) -> None:
        self._crm = crm

    async def stats(self, _request: Request) -> Response:
        return json_answer(orjson.dumps(self._crm.stats()))

    async def log(self, _request: Request) -> Response:
        with self._crm.lock:
            return json_answer(orjson.dumps({"writes": [asdict(write) for write in self._crm.log]}))

    async def broken(self, _request: Request) -> Response:
        return json_answer(orjson.dumps({"broken": self._crm.broken}))

    async def edit(self, request: Request) -> Response:
        order = object_of(await json_body(request))
        record_id, fields = order.get("id"), object_of(order.get("fields", {}))
        if order.get("delete"):
            self._crm.delete(_text(record_id))
            return json_answer(b"null")
        if record_id is None:
            return json_answer(orjson.dumps(self._crm.create(**fields)), 201)
        return json_answer(orjson.dumps(self._crm.edit(_text(record_id), **fields)))

    async def faults(self, request: Request) -> Response:
        order = object_of(await json_body(request))
        texts, seed = order.get("faults"), order.get("seed", 1)
        if not isinstance(texts, list) or not isinstance(seed, int):
            raise RefusedError(
                422, "invalid_value", "'faults' must be a list of texts, 'seed' a whole number."
            )
        try:
            self._crm.faults = parse_faults(map(str, texts), seed=seed)
        except FaultError as error:
            raise RefusedError(422, "unknown_fault", str(error)) from error
        return json_answer(orjson.dumps(self._crm.stats()))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RefusedError(422, "invalid_value", "'id' must be a text.")
    return value
