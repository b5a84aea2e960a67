"""The contact: its fields, their names in JSON and SQL, and their types."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FieldType(StrEnum):
    """What a contact field holds."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    INSTANT = "instant"
    WHATSAPP_ID = "whatsapp_id"


DEAL_STATUSES = ("prospect", "negotiating", "deal", "lost")
TASK_STATUSES = ("To Do", "Follow Up", "Next Year")
NEW_DEAL_STATUS = "prospect"
"""Deal status of a contact that arrives without one. A default, never anybody's edit."""


@dataclass(frozen=True, slots=True)
class ContactField:
    """One field of a contact."""

    name: str
    """Column name, also the name in Python."""
    json_name: str
    type: FieldType
    external_names: tuple[str, ...]
    choices: tuple[str, ...] = ()
    synonyms: tuple[tuple[str, str], ...] = ()
    nullable: bool = True


_DEAL_SYNONYMS = (("negotiation", "negotiating"), ("closed", "deal"))

FIELDS: tuple[ContactField, ...] = (
    ContactField("id", "id", FieldType.WHATSAPP_ID, ("phone", "whatsapp_id"), nullable=False),
    ContactField("nama", "nama", FieldType.TEXT, ("name", "contact_name")),
    ContactField("instansi", "instansi", FieldType.TEXT, ("company", "organization")),
    ContactField("event", "event", FieldType.TEXT, ("event_name",)),
    ContactField("ticket_price", "ticketPrice", FieldType.INTEGER, ("ticket_price", "price")),
    ContactField("capacity", "capacity", FieldType.INTEGER, ("capacity", "venue_size")),
    ContactField(
        "deal_status",
        "dealStatus",
        FieldType.CHOICE,
        ("status", "deal_stage"),
        choices=DEAL_STATUSES,
        synonyms=_DEAL_SYNONYMS,
        nullable=False,
    ),
    ContactField("notes", "notes", FieldType.TEXT, ("notes", "description")),
    ContactField("cp_first", "cpFirst", FieldType.TEXT, ("phone_1", "contact_phone")),
    ContactField("cp_second", "cpSecond", FieldType.TEXT, ("phone_2",)),
    ContactField("ig_link", "igLink", FieldType.TEXT, ("instagram", "social_media")),
    ContactField("pic", "pic", FieldType.TEXT, ("sales_rep", "assigned_to")),
    ContactField("status", "status", FieldType.CHOICE, ("task_status",), choices=TASK_STATUSES),
    ContactField("meeting_date", "meetingDate", FieldType.INSTANT, ("meeting_date",)),
    ContactField("ticket_sale_date", "ticketSaleDate", FieldType.INSTANT, ("sale_date",)),
    ContactField("event_day_date", "eventDayDate", FieldType.INSTANT, ("event_date",)),
)

BUILT_IN: dict[str, ContactField] = {field.name: field for field in FIELDS}

RESERVED = frozenset({"custom", "created_at", "updated_at", "archived_at", "row_version", "pushed_version"})
"""Columns of the contact table that are no fields."""
