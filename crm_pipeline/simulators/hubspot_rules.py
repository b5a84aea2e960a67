"""HubSpot's rules: which properties there are, what they hold, and how errors are worded."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from crm_pipeline.simulators.answers import json_answer, object_of
from crm_pipeline.simulators.crm import TEXT_MAX
from crm_pipeline.simulators.vendor import Vendor

LIST_MAX = 100
BATCH_MAX = 100
NUMBERS = frozenset({"ticket_price", "capacity"})
DATES = frozenset({"meeting_date", "sale_date", "event_date"})
OPTIONS = {
    "deal_status": ("prospect", "negotiating", "deal", "lost", "negotiation", "closed"),
    "task_status": ("To Do", "Follow Up", "Next Year"),
}
TEXTS = frozenset(
    [
        "chat_id",
        "firstname",
        "lastname",
        "email",
        "phone",
        "mobilephone",
        "company",
        "jobtitle",
        "event_name",
        "notes",
        "cp_second",
        "instagram",
        "sales_rep",
    ]
)
READ_ONLY = frozenset({"createdate", "lastmodifieddate", "hs_object_id", "hs_merged_object_ids"})
KNOWN = TEXTS | NUMBERS | DATES | OPTIONS.keys() | READ_ONLY
DEFAULTS = ("createdate", "email", "firstname", "hs_object_id", "lastmodifieddate", "lastname")

VENDOR = Vendor(
    names={
        "phone": "chat_id",
        "company": "company",
        "event_name": "event_name",
        "ticket_price": "ticket_price",
        "capacity": "capacity",
        "status": "deal_status",
        "notes": "notes",
        "phone_1": "phone",
        "instagram": "instagram",
        "sales_rep": "sales_rep",
        "task_status": "task_status",
        "meeting_date": "meeting_date",
        "sale_date": "sale_date",
        "event_date": "event_date",
    },
    first_name="firstname",
    last_name="lastname",
    unique="chat_id",
    unit=timedelta(milliseconds=1),
    make_id=str,
)


class HubSpotError(Exception):
    """An error as HubSpot words it."""

    def __init__(self, status: int, category: str, message: str, **more: Any) -> None:
        """Keep what the answer says."""
        super().__init__(message)
        self.status = status
        self.body = {
            "status": "error",
            "message": message,
            "correlationId": "00000000-0000-4000-8000-000000000000",
            "category": category,
            **more,
        }


def text_of(value: Any) -> str | None:
    """A value as HubSpot shows it."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def time_text(stamp: str) -> str:
    """A stamp with milliseconds."""
    return stamp[:23] + "Z"


ALWAYS = ("createdate", "hs_object_id", "lastmodifieddate")


def check(properties: dict[str, Any]) -> None:
    """Refuse what HubSpot does not take, with the list of reasons inside the message."""
    wrong = [reason for name, value in properties.items() if (reason := _wrong(name, value))]
    if wrong:
        text = f"Property values were not valid: {orjson.dumps(wrong).decode()}"
        raise HubSpotError(400, "VALIDATION_ERROR", text)


def _wrong(name: str, value: Any) -> dict[str, Any] | None:
    code = ""
    if name not in KNOWN:
        code = "PROPERTY_DOESNT_EXIST"
    elif name in READ_ONLY:
        code = "READ_ONLY_VALUE"
    elif value in {"", None}:
        return None
    elif name in NUMBERS and not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", str(value)):
        code = "INVALID_INTEGER"
    elif name in OPTIONS and value not in OPTIONS[name]:
        code = "INVALID_OPTION"
    elif name in DATES and not _is_time(value):
        code = "INVALID_DATE"
    elif name == "email" and "@" not in str(value):
        code = "INVALID_EMAIL"
    elif len(str(value)) > TEXT_MAX:
        code = "INVALID_LENGTH"
    return (
        {"isValid": False, "message": f"{name} is not valid", "error": code, "name": name} if code else None
    )


def _is_time(value: Any) -> bool:
    if str(value).isdecimal():
        return True
    try:
        datetime.fromisoformat(str(value)).astimezone(UTC)
    except ValueError:
        return False
    return True


def stored(properties: dict[str, Any]) -> dict[str, Any]:
    """Values as they are kept: an empty text clears."""
    return {name: text_of(value) for name, value in properties.items()}


def page_of(
    request: Request, found: list[dict[str, Any]], following: str | None, foreign: str = ""
) -> Response:
    """A page of the list. ``foreign``: scheme and host that the link to the next points to."""
    body: dict[str, Any] = {"results": found}
    if following is not None:
        link = str(request.url.include_query_params(after=following))
        link = foreign + link.removeprefix(str(request.base_url).rstrip("/")) if foreign else link
        body["paging"] = {"next": {"after": following, "link": link}}
    return json_answer(orjson.dumps(body))


def multi(results: list[dict[str, Any]], errors: list[dict[str, Any]], status: int = 200) -> Response:
    """The answer to a batch: 207 where rows failed."""
    now = "2026-01-05T10:00:00.000Z"
    body: dict[str, Any] = {"status": "COMPLETE", "results": results, "startedAt": now, "completedAt": now}
    if errors:
        body |= {"numErrors": len(errors), "errors": errors}
    return json_answer(orjson.dumps(body), 207 if errors else status)


def row_error(error: HubSpotError, each: dict[str, Any]) -> dict[str, Any]:
    """A failed row."""
    context = {"objectWriteTraceId": [each["objectWriteTraceId"]]} if "objectWriteTraceId" in each else {}
    if "id" in each and not context:
        context = {"ids": [str(each["id"])]}
    return {**error.body, "context": context}


def error_item(category: str, message: str, **context: Any) -> dict[str, Any]:
    """An error in a batch."""
    return {"status": "error", "category": category, "message": message, "context": context}


def throttled(policy: str, message: str) -> HubSpotError:
    """A limit that is used up."""
    return HubSpotError(
        429, "RATE_LIMITS", message, errorType="RATE_LIMIT", policyName=policy, groupName="publicapi:calls"
    )


def inputs_of(payload: Any) -> list[dict[str, Any]]:
    """Inputs of a batch."""
    inputs = object_of(payload).get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(each, dict) for each in inputs):
        raise HubSpotError(400, "VALIDATION_ERROR", "inputs is needed")
    if len(inputs) > BATCH_MAX:
        raise HubSpotError(400, "VALIDATION_ERROR", f"The maximum batch size is {BATCH_MAX}.")
    return inputs


def properties_of(payload: Any) -> dict[str, Any]:
    """Properties that a request carries."""
    return object_of(object_of(payload).get("properties", {}))


def names_of(asked: list[str]) -> list[str] | None:
    """Property names, comma separated or repeated."""
    return [name.strip() for each in asked for name in each.split(",") if name.strip()] or None


def whole(text: str) -> int:
    """A whole number of a request."""
    if not text.isdecimal():
        raise HubSpotError(400, "VALIDATION_ERROR", "a whole number is needed")
    return int(text)


def schema(name: str) -> dict[str, Any]:
    """A property as the schema shows it."""
    kind = "number" if name in NUMBERS else "datetime" if name in DATES else "string"
    options = [{"label": option, "value": option} for option in OPTIONS.get(name, ())]
    return {
        "name": name,
        "label": name,
        "type": "enumeration" if options else kind,
        "fieldType": "select" if options else "text",
        "options": options,
        "hasUniqueValue": name in {VENDOR.unique, "email"},
        "calculated": False,
        "modificationMetadata": {"readOnlyValue": name in READ_ONLY},
    }
