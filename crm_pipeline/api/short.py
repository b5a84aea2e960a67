"""The short way: a webhook that came whole is taken, landed and answered without a task of its own.

It takes the steps of the long way, in the same order; what they decide is decided in one place.
Spared are tasks, events, request and response objects, and their way through the event loop.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from starlette.responses import Response
from starlette.types import Scope

from crm_pipeline.api import bodies
from crm_pipeline.api.gate import Endpoint, Gate, own_headers, refusal
from crm_pipeline.api.headers import Headers
from crm_pipeline.api.landing import Outcome
from crm_pipeline.api.limits import Limiter
from crm_pipeline.api.routes import ANSWER_SECONDS, Api, Visit, acknowledged, told, too_slow
from crm_pipeline.api.webhooks import Delivery
from crm_pipeline.api.whole import Answer
from crm_pipeline.ids import new_id
from crm_pipeline.sync.reception import Receipt


@dataclass(frozen=True, slots=True)
class ShortWay:
    """For the webhook's endpoint, where a request waits for nothing but its landing."""

    gate: Gate
    endpoint: Endpoint
    api: Api
    limiter: Limiter | None
    """Counts in this process."""

    def __call__(self, scope: Scope, headers: Headers, body: bytes, answer: Answer) -> None:
        """Take a request; ``answer`` is called once, now or later."""
        visit = Visit(new_id(), headers)
        _Passage(self, visit, answer, time.perf_counter()).take(scope, body)


@dataclass(slots=True)
class _Passage:
    """One request on its way."""

    way: ShortWay
    visit: Visit
    answer: Answer
    began: float
    held: int = 0
    """Bytes of its body, while it is worked on."""

    def take(self, scope: Scope, body: bytes) -> None:
        try:
            self._admit(scope)
            api, visit = self.way.api, self.visit
            bodies.require(api.door.media_type, visit.headers)
            self.held = len(body)
            api.bodies.hold(visit.caller, self.held)
            delivery = api.door.take(scope, visit.headers, body, visit.request_id)
            api.land.put(delivery.arrivals, ANSWER_SECONDS, partial(self._landed, delivery))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            self._refuse(error)

    def _admit(self, scope: Scope) -> None:
        """Let it in, and count it.

        Raises:
            Problem: it may not come in.
        """
        visit, limiter = self.visit, self.way.limiter
        self.way.gate.recognise(scope, visit)
        if limiter is not None:
            limiter.count_here("address", visit.caller)
        self.way.endpoint.recognise(visit)
        if limiter is not None and visit.key is not None:
            limiter.count_here("key", visit.key)
        self.way.endpoint.require_on()

    def _landed(self, delivery: Delivery, outcome: Outcome[Receipt]) -> None:
        if isinstance(outcome, Exception):
            self._refuse(too_slow() if isinstance(outcome, TimeoutError) else outcome)
            return
        api = self.way.api
        try:
            response = acknowledged(api, delivery, told(api, outcome))
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(error)
        else:
            self._end(response, {})

    def _refuse(self, error: Exception) -> None:
        self._end(*refusal(error))

    def _end(self, response: Response, failure: dict[str, str]) -> None:
        if self.held:
            self.way.api.bodies.release(self.visit.caller, self.held)
        self.visit.status = response.status_code
        headers = (*response.raw_headers, *own_headers(self.visit))
        self.answer(response.status_code, headers, bytes(response.body))
        self.way.gate.note("POST", self.visit, failure, time.perf_counter() - self.began)
