"""Vendors' events: which records each names, and the name it goes by itself.

An event goes by the sender's id for it and a digest of what it says: HubSpot's ids are not
always unique, Zoho gives none, and Salesforce may say something newer under an old one. All
repeats of one event are one event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias
from xml.etree.ElementTree import Element

from crm_pipeline import jsonio
from crm_pipeline.api import soap
from crm_pipeline.api.problems import Problem

_DIGEST = 16
_LONGEST = 128
"""Characters of an id that can be a vendor's."""


class Told(NamedTuple):
    """What an event says of one record."""

    payload: dict[str, Any]
    event_id: str | None = None
    record_id: str | None = None
    ours: bool = True
    """False for an event about something that is no contact."""
    refused: Mapping[str, str] = {}
    """Why nothing can be made of it."""


Reader: TypeAlias = Callable[[dict[str, Any]], Iterator[Told]]

# HubSpot: a list of events.

_CONTACTS = "0-1"
"""The type of contacts among HubSpot's objects."""


def hubspot(event: dict[str, Any]) -> Iterator[Told]:
    """An event of HubSpot's; one of a merge names all records that took part.

    The number of the attempt belongs to the delivery, not to the event, and is not kept.
    """
    event = {name: value for name, value in event.items() if name != "attemptNumber"}
    kind = str(event.get("subscriptionType"))
    generic = kind.startswith("object.") and event.get("objectTypeId") == _CONTACTS
    merged = event.get("mergedObjectIds")
    named = [event.get(name) for name in ("objectId", "primaryObjectId", "newObjectId")]
    named += merged if isinstance(merged, list) else ()
    records = _ids(named) if generic or kind.startswith("contact.") else []
    yield from _one_each(event, _name(event, event.get("eventId")), records)


# Zoho: one notification that names records.

_NOT_KEPT = frozenset({"ids", "affected_fields", "affected_values", "query_params", "resource_uri"})


def zoho(notification: dict[str, Any]) -> Iterator[Told]:
    """A notification of Zoho's: an event for each record it names."""
    ids = notification.get("ids")
    ours = notification.get("module") == "Contacts" and isinstance(ids, list)
    kept = {name: value for name, value in notification.items() if name not in _NOT_KEPT}
    name = _name(notification, notification.get("channel_id"))
    yield from _one_each(kept, name, _ids(ids) if ours and isinstance(ids, list) else [])


# Salesforce: an outbound message.

ACKNOWLEDGED = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
    b'<notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>true</Ack>'
    b"</notificationsResponse></soapenv:Body></soapenv:Envelope>"
)
"""The only answer after which Salesforce does not send a message again."""
_OUT = "{http://soap.sforce.com/2005/09/outbound}"
_INSTANCE = "{http://www.w3.org/2001/XMLSchema-instance}"
_MOST_NOTIFICATIONS = 100
"""As Salesforce promises."""


@dataclass(frozen=True, slots=True)
class OutboundMessage:
    """What a message of Salesforce's holds that counts; its session id is left where it is."""

    organization: str
    told: tuple[Told, ...]


def salesforce(body: bytes) -> OutboundMessage:
    """A message of Salesforce's.

    Raises:
        Problem: it is no such message (400).
    """
    found = soap.parse(body).find(f"{soap.ENVELOPE}Body/{_OUT}notifications")
    notifications = [] if found is None else found.findall(f"{_OUT}Notification")
    if found is None or not 0 < len(notifications) <= _MOST_NOTIFICATIONS:
        raise Problem(400, "The body must be an outbound message with 1 to 100 notifications.")
    told = tuple(_notification(each) for each in notifications)
    return OutboundMessage((found.findtext(f"{_OUT}OrganizationId") or "").strip(), told)


def _notification(notification: Element) -> Told:
    record = notification.find(f"{_OUT}sObject")
    if record is None:
        raise Problem(400, "A notification holds no sObject.")
    kind = record.get(f"{_INSTANCE}type", "").rpartition(":")[2]
    payload = _fields(record)
    (record_id,) = _ids([payload.get("Id")]) or (None,)
    name = _name(payload, (notification.findtext(f"{_OUT}Id") or "").strip())
    return Told(payload, name, record_id, ours=kind == "Contact" and record_id is not None)


def _fields(element: Element) -> dict[str, Any]:
    return {soap.local(field.tag): _value(field) for field in element}


def _value(field: Element) -> Any:
    if field.get(f"{_INSTANCE}nil") in {"true", "1"}:
        return None
    return _fields(field) if len(field) else field.text or ""


# What they share.


def _ids(found: Iterable[object]) -> list[str]:
    """Ids of records, each once."""
    texts = [str(each) for each in found if isinstance(each, str | int) and not isinstance(each, bool)]
    return list(dict.fromkeys(text for text in texts if 0 < len(text) <= _LONGEST and text.isprintable()))


def _name(said: Mapping[str, Any], own: object) -> str:
    digest = jsonio.content_hash(jsonio.dumps(said))[:_DIGEST]
    given = _ids([own])
    return f"{given[0]}-{digest}" if given and given[0].isascii() and " " not in given[0] else digest


def _one_each(event: dict[str, Any], name: str, records: list[str]) -> Iterator[Told]:
    """The same event for each of the records; one that names none is kept all the same."""
    if not records:
        yield Told(event, name, ours=False)
    for number, record in enumerate(records):
        yield Told(event, name if len(records) == 1 else f"{name}/{number}", record)
