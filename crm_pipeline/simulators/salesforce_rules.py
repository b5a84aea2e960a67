"""Salesforce's rules: which fields a contact has, what they hold, and how errors are worded."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from crm_pipeline.simulators.vendor import Vendor

NUMBERS = frozenset({"Ticket_Price__c", "Capacity__c"})
DATES = frozenset({"Meeting_Date__c", "Sale_Date__c", "Event_Date__c"})
OPTIONS = {
    "Deal_Status__c": ("prospect", "negotiating", "deal", "lost", "negotiation", "closed"),
    "Task_Status__c": ("To Do", "Follow Up", "Next Year"),
}
LENGTHS = {
    "FirstName": 40,
    "LastName": 80,
    "Email": 80,
    "Phone": 40,
    "MobilePhone": 40,
    "OtherPhone": 40,
    "Chat_Id__c": 80,
    "Organisation__c": 255,
    "Event__c": 255,
    "Instagram__c": 255,
    "Sales_Rep__c": 255,
    "Description": 32_000,
}
READ_ONLY = frozenset(
    {"Id", "Name", "CreatedDate", "LastModifiedDate", "SystemModstamp", "IsDeleted", "MasterRecordId"}
)
KNOWN = LENGTHS.keys() | NUMBERS | DATES | OPTIONS.keys() | READ_ONLY
RELATION = re.compile(r"(?:Account|Owner)\.Name")
_DIGITS = string.ascii_uppercase + "012345"


def make_id(seq: int) -> str:
    """An id of 18 characters: fifteen, and three that say which of them are capitals."""
    short = f"003xx{seq:010d}"
    groups = (short[start : start + 5] for start in (0, 5, 10))
    marks = (sum(1 << place for place, letter in enumerate(group) if letter.isupper()) for group in groups)
    return short + "".join(_DIGITS[mark] for mark in marks)


VENDOR = Vendor(
    names={
        "phone": "Chat_Id__c",
        "company": "Organisation__c",
        "event_name": "Event__c",
        "ticket_price": "Ticket_Price__c",
        "capacity": "Capacity__c",
        "status": "Deal_Status__c",
        "notes": "Description",
        "phone_1": "Phone",
        "instagram": "Instagram__c",
        "sales_rep": "Sales_Rep__c",
        "task_status": "Task_Status__c",
        "meeting_date": "Meeting_Date__c",
        "sale_date": "Sale_Date__c",
        "event_date": "Event_Date__c",
    },
    first_name="FirstName",
    last_name="LastName",
    unique="Chat_Id__c",
    unit=timedelta(seconds=1),
    make_id=make_id,
)


class SalesforceError(Exception):
    """An error as Salesforce words it."""

    def __init__(self, status: int, code: str, message: str, fields: tuple[str, ...] = ()) -> None:
        """Keep what the answer says."""
        super().__init__(message)
        self.status, self.code, self.message, self.fields = status, code, message, fields

    def body(self) -> dict[str, Any]:
        """One item of the array that an error is."""
        more = {"fields": list(self.fields)} if self.fields else {}
        return {"message": self.message, "errorCode": self.code, **more}


def time_text(stamp: str) -> str:
    """A stamp as it goes out: whole seconds, and an offset without a colon."""
    return stamp[:19] + ".000+0000"


def item_of(whole: Mapping[str, Any], fields: tuple[str, ...], version: str) -> dict[str, Any]:
    """A record with the fields that were asked for."""
    url = f"/services/data/{version}/sobjects/Contact/{whole['Id']}"
    item: dict[str, Any] = {"attributes": {"type": "Contact", "url": url}}
    for name in fields:
        if RELATION.fullmatch(name):
            item[name.partition(".")[0]] = None
        elif name in DATES and whole.get(name):
            item[name] = f"{datetime.fromisoformat(str(whole[name])):%Y-%m-%dT%H:%M:%S.000+0000}"
        else:
            item[name] = whole.get(name)
    return item


def check(fields: Mapping[str, Any], *, creating: bool) -> None:
    """Refuse what Salesforce does not take.

    Raises:
        SalesforceError: 400.
    """
    if (creating or "LastName" in fields) and not fields.get("LastName"):
        text = "Required fields are missing: [LastName]"
        raise SalesforceError(400, "REQUIRED_FIELD_MISSING", text, ("LastName",))
    for name, value in fields.items():
        code = _wrong(name, value)
        if code:
            raise SalesforceError(400, code, f"{name}: value not valid", (name,))


def _wrong(name: str, value: Any) -> str:
    if name not in KNOWN:
        return "INVALID_FIELD"
    if name in READ_ONLY:
        return "INVALID_FIELD_FOR_INSERT_UPDATE"
    if value is None:
        return ""
    if name in OPTIONS and value not in OPTIONS[name]:
        return "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"
    if name in LENGTHS and len(str(value)) > LENGTHS[name]:
        return "STRING_TOO_LONG"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    wrong = (name in NUMBERS and not number) or (name in DATES and not _is_time(value))
    return "JSON_PARSER_ERROR" if wrong else ""


def _is_time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(str(value)).tzinfo is not None
    except ValueError:
        return False


def stored(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they are kept: trimmed, and an empty text is none."""
    return {
        name: (value.strip() or None) if isinstance(value, str) else value for name, value in fields.items()
    }


def describe(*, writable: bool) -> dict[str, Any]:
    """The object's description."""
    fields = [_field(name) for name in sorted(KNOWN)]
    may = {"createable": writable, "updateable": writable}
    return {"name": "Contact", "label": "Contact", **may, "fields": fields}


def _field(name: str) -> dict[str, Any]:
    kind = "double" if name in NUMBERS else "datetime" if name in DATES else "string"
    options = [{"value": option, "active": True} for option in OPTIONS.get(name, ())]
    return {
        "name": name,
        "type": "picklist" if options else kind,
        "createable": name not in READ_ONLY,
        "updateable": name not in READ_ONLY,
        "nillable": name != "LastName",
        "externalId": name == VENDOR.unique,
        "unique": name == VENDOR.unique,
        "picklistValues": options,
        "length": LENGTHS.get(name, 0),
    }
