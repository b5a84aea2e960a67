"""Zoho's rules: which fields a contact has, what they hold, and how results and errors are worded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from crm_pipeline.simulators.vendor import Vendor

ZONE = timezone(timedelta(hours=7))
"""Of the user that the token belongs to: times go out in it."""
WHOLE = frozenset({"Ticket_Price", "Capacity"})
TIMES = frozenset({"Meeting_Date", "Sale_Date", "Event_Date"})
PHONES = frozenset({"Phone", "Mobile", "Other_Phone"})
OPTIONS = {
    "Deal_Status": ("prospect", "negotiating", "deal", "lost", "negotiation", "closed"),
    "Task_Status": ("To Do", "Follow Up", "Next Year"),
}
TEXTS = frozenset(
    {
        "Chat_Id",
        "First_Name",
        "Last_Name",
        "Email",
        "Organisation",
        "Event",
        "Description",
        "Instagram",
        "Sales_Rep",
        "Title",
    }
)
READ_ONLY = frozenset({"id", "Full_Name", "Created_Time", "Modified_Time", "Created_By", "Modified_By"})
KNOWN = WHOLE | TIMES | PHONES | OPTIONS.keys() | TEXTS | READ_ONLY
TEXT_MAX = 32_000
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[+-][0-9]{2}:[0-9]{2}")
_PHONE = re.compile(r"[0-9+().\- ]{1,30}")

VENDOR = Vendor(
    links=False,
    names={
        "phone": "Chat_Id",
        "company": "Organisation",
        "event_name": "Event",
        "ticket_price": "Ticket_Price",
        "capacity": "Capacity",
        "status": "Deal_Status",
        "notes": "Description",
        "phone_1": "Phone",
        "instagram": "Instagram",
        "sales_rep": "Sales_Rep",
        "task_status": "Task_Status",
        "meeting_date": "Meeting_Date",
        "sale_date": "Sale_Date",
        "event_date": "Event_Date",
    },
    first_name="First_Name",
    last_name="Last_Name",
    unique="Chat_Id",
    unit=timedelta(seconds=1),
    make_id=lambda seq: str(5_550_000_000_000_000 + seq),
)


class ZohoError(Exception):
    """An error as Zoho words it, at the top or in a row."""

    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:
        """Keep what the answer says."""
        super().__init__(message)
        self.status, self.code, self.message, self.details = status, code, message, details

    def body(self) -> dict[str, Any]:
        """The error's object."""
        return {"code": self.code, "details": self.details, "message": self.message, "status": "error"}


def time_text(text: str) -> str:
    """A time in the user's zone."""
    return datetime.fromisoformat(text).astimezone(ZONE).isoformat(timespec="seconds")


def shown(name: str, value: Any) -> Any:
    """A value as it goes out."""
    return time_text(value) if name in TIMES and value else value


def check(fields: Mapping[str, Any], place: int, *, creating: bool) -> None:
    """Refuse what Zoho does not take; fields it does not know are passed over.

    Raises:
        ZohoError: the row is wrong.
    """
    if (creating or "Last_Name" in fields) and not fields.get("Last_Name"):
        path = f"$.data[{place}].Last_Name"
        raise ZohoError(
            400, "MANDATORY_NOT_FOUND", "required field not found", api_name="Last_Name", json_path=path
        )
    for name, value in fields.items():
        expected = _expected(name, value)
        if expected:
            path = f"$.data[{place}].{name}"
            raise ZohoError(
                400,
                "INVALID_DATA",
                "invalid data",
                expected_data_type=expected,
                api_name=name,
                json_path=path,
            )


_CHECKS: tuple[tuple[frozenset[str], str, Callable[[Any], bool]], ...] = (
    (WHOLE, "integer", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    (TIMES, "datetime", lambda value: isinstance(value, str) and _TIME.fullmatch(value) is not None),
    (PHONES, "phone", lambda value: isinstance(value, str) and _PHONE.fullmatch(value) is not None),
    (TEXTS, "text", lambda value: isinstance(value, str) and len(value) <= TEXT_MAX),
)


def _expected(name: str, value: Any) -> str:
    """What a field would take; empty where the value is right."""
    if value is None:
        return ""
    if name in OPTIONS and value not in OPTIONS[name]:
        return "picklist"
    return next((kind for names, kind, right in _CHECKS if name in names and not right(value)), "")


def stored(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as they are kept."""
    return {name: value for name, value in fields.items() if name in KNOWN - READ_ONLY}


def schema() -> list[dict[str, Any]]:
    """The module's fields."""
    return [_field(name) for name in sorted(KNOWN)]


def _field(name: str) -> dict[str, Any]:
    kinds = ((WHOLE, "integer"), (TIMES, "datetime"), (PHONES, "phone"), (OPTIONS.keys(), "picklist"))
    kind = next((kind for names, kind in kinds if name in names), "text")
    options = [{"display_value": option, "actual_value": option} for option in OPTIONS.get(name, ())]
    return {
        "id": str(abs(hash(name)) % 10**12),
        "api_name": name,
        "field_label": name,
        "data_type": "bigint" if name == "id" else kind,
        "json_type": "string",
        "length": 255,
        "read_only": name in READ_ONLY,
        "system_mandatory": name == "Last_Name",
        "custom_field": True,
        "visible": True,
        "unique": {"casesensitive": "false"} if name == VENDOR.unique else {},
        "pick_list_values": options,
    }
