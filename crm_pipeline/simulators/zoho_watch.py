"""Zoho's notification channels: made, renewed, listed; each ends by itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from crm_pipeline.simulators.answers import json_answer, object_of
from crm_pipeline.simulators.zoho_rules import ZONE, ZohoError

USUAL, LONGEST = timedelta(hours=1), timedelta(days=1)
TOKEN_MAX = 50
_EVENT = re.compile(r"Contacts\.(create|edit|delete|all)")


class Channels:
    """The channels of one account."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        """Keep none yet."""
        self._clock = clock
        self._ends: dict[str, datetime] = {}
        self._asked: dict[str, dict[str, Any]] = {}

    def make(self, _request: Request, payload: Any) -> Response:
        """Channels of the ids that are told, new or not."""
        return self._each(payload, self._made)

    def renew(self, _request: Request, payload: Any) -> Response:
        """Channels that are there, in place of what they were."""
        return self._each(payload, self._renewed)

    def listing(self, _request: Request, _payload: Any) -> Response:
        """Those that have not ended."""
        live = [name for name, ends in self._ends.items() if ends > self._clock()]
        shown = [{**self._asked[name], "channel_expiry": _text(self._ends[name])} for name in live]
        return json_answer(orjson.dumps({"watch": shown})) if shown else Response(status_code=204)

    def _each(self, payload: Any, act: Callable[[dict[str, Any]], dict[str, Any]]) -> Response:
        asked = object_of(payload).get("watch")
        if not isinstance(asked, list) or not asked:
            raise ZohoError(400, "MANDATORY_NOT_FOUND", "required field not found", api_name="watch")
        results = [self._one(object_of(each), act) for each in asked]
        failed = sum(each["status"] == "error" for each in results)
        status = 400 if failed == len(results) else 207 if failed else 201
        return json_answer(orjson.dumps({"watch": results}), status)

    def _one(self, asked: dict[str, Any], act: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        try:
            return act(asked)
        except ZohoError as error:
            return error.body()

    def _renewed(self, asked: dict[str, Any]) -> dict[str, Any]:
        ends = self._ends.get(str(asked.get("channel_id")))
        if ends is None or ends <= self._clock():
            raise ZohoError(400, "NOT_SUBSCRIBED", "no such channel", api_name="channel_id")
        return self._made(asked)

    def _made(self, asked: dict[str, Any]) -> dict[str, Any]:
        name, events = str(asked.get("channel_id")), asked.get("events")
        if not name.isdecimal():
            raise ZohoError(400, "INVALID_DATA", "invalid data", api_name="channel_id")
        if not isinstance(events, list) or not all(_EVENT.fullmatch(str(each)) for each in events):
            raise ZohoError(400, "INVALID_DATA", "invalid data", api_name="events")
        if not str(asked.get("notify_url", "")).startswith(("https://", "http://127.0.0.1")):
            raise ZohoError(400, "INVALID_DATA", "invalid data", api_name="notify_url")
        if len(str(asked.get("token", ""))) > TOKEN_MAX:
            raise ZohoError(400, "INVALID_DATA", "invalid data", api_name="token")
        ends = self._end(asked.get("channel_expiry"))
        self._ends[name], self._asked[name] = ends, asked
        event = {"channel_id": name, "channel_expiry": _text(ends), "resource_name": "Contacts"}
        message = "Successfully subscribed for actions-watch of the given module"
        return {
            "code": "SUCCESS",
            "status": "success",
            "message": message,
            "details": {"events": [event]},
        }

    def _end(self, wanted: object) -> datetime:
        """An hour from now for whoever asks for nothing, or for too much."""
        now = self._clock()
        try:
            ends = datetime.fromisoformat(str(wanted)) if wanted is not None else now + USUAL
        except ValueError:
            raise ZohoError(400, "INVALID_DATA", "invalid data", api_name="channel_expiry") from None
        if ends.tzinfo is None or ends <= now:
            raise ZohoError(400, "INVALID_DATA", "invalid data", api_name="channel_expiry")
        return ends if ends <= now + LONGEST else now + USUAL


def _text(when: datetime) -> str:
    return when.astimezone(ZONE).isoformat(timespec="seconds")
