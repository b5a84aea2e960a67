"""The connection file: one CRM account described as data, typed and validated.

Nine environment variables cannot say where a CRM keeps its records, how it pages or
what it calls a field. This model can, without code. It is pure: it reads no
environment and opens no file (``settings.py`` does), so connectors and mapping can
both depend on it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from crm_pipeline.checked import (
    CrmUrl,
    DottedPath,
    FilterTimeForm,
    FixedUrlPath,
    HeaderName,
    Region,
    TimeForm,
    UrlPathWithId,
    ZoneName,
)
from crm_pipeline.contact import BUILT_IN, RESERVED, FieldType
from crm_pipeline.vendor_rules import check_vendor

Path = DottedPath
"""A dotted path into a JSON document: ``data.items``, ``phones.0.value``, ``name``. A field's path
may choose from a list of objects: ``phones[type=work].number``."""


_COLUMNS = {field.json_name: name for name, field in BUILT_IN.items() if field.json_name != name}
"""Of built-in fields whose JSON name is another."""


class _Section(BaseModel):
    """One section of the file: unknown keys are mistakes, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Made = TypeVar("_Made", bound=_Section)


def _holding(section: _Made, key: str, placeholder: str) -> _Made:
    """Check that a template has a place for what goes into it."""
    if placeholder not in getattr(section, key):
        msg = f"{key}: must hold {placeholder}"
        raise ValueError(msg)
    return section


class ConnectorType(StrEnum):
    """Which dialect the connector speaks."""

    GENERIC = "generic"
    HUBSPOT = "hubspot"
    SALESFORCE = "salesforce"
    ZOHO = "zoho"


class OAuth(_Section):
    """Where access tokens come from. Put secrets in the environment: ``${NAME}``."""

    grant: Literal["client_credentials", "refresh_token", "jwt_bearer"]
    token_url: CrmUrl | None = None
    """Where tokens are asked for; a vendor's own address when not given."""
    client_id: str
    client_secret: SecretStr | None = None
    refresh_token: SecretStr | None = None
    """For ``refresh_token``. One that the CRM changes is kept with the access token."""
    private_key: SecretStr | None = None
    """For ``jwt_bearer``: the RSA key that signs, in PEM form."""
    username: str | None = None
    """For ``jwt_bearer``: the user that is acted for."""
    audience: str | None = None
    """For ``jwt_bearer``: who is asked; the origin of ``token_url`` when not given."""
    scope: str | None = None
    client_auth: Literal["body", "basic"] = "body"
    """How the client shows its secret: in the form, or with HTTP Basic."""

    @model_validator(mode="after")
    def _has_what_the_grant_needs(self) -> OAuth:
        needed = {
            "client_credentials": ("client_secret",),
            "refresh_token": ("refresh_token",),
            "jwt_bearer": ("private_key", "username"),
        }[self.grant]
        for name in needed:
            if not getattr(self, name):
                msg = f"auth.oauth.{name}: is needed for the grant {self.grant}"
                raise ValueError(msg)
        return self


class Auth(_Section):
    """How a request proves who it is; the key itself comes from the environment."""

    kind: Literal["none", "bearer", "header", "basic", "query", "oauth2"] = "bearer"
    header: HeaderName = "Authorization"
    template: str = "{api_key}"
    """For ``header``: the header's value, with ``{api_key}`` where the key goes."""
    param: str = "api_key"
    """For ``query``: the name of the query parameter."""
    username: str = ""
    """For ``basic``: the user name; the key is the password."""
    scheme: str = "Bearer"
    """For ``oauth2``: the word before the token."""
    oauth: OAuth | None = None
    """For ``oauth2``."""

    @model_validator(mode="after")
    def _holds_the_key(self) -> Auth:
        return _holding(self, "template", "{api_key}") if self.kind == "header" else self

    @model_validator(mode="after")
    def _tokens_come_from_somewhere(self) -> Auth:
        if (self.kind == "oauth2") != (self.oauth is not None):
            msg = "auth.oauth: goes with 'kind: oauth2', and is needed for it"
            raise ValueError(msg)
        return self


class Records(_Section):
    """Where a page holds its records, and a record its own facts."""

    path: Path | None = None
    """List of records inside the page; common envelopes are detected when not given."""
    id: tuple[Path, ...] = ("id", "external_id", "record_id", "uuid")
    """First present wins. A record without one is identified by its WhatsApp id."""
    modified: tuple[Path, ...] = ("updated_at", "modified_at", "updatedAt", "modified", "created_at")
    deleted: Path | None = None
    """A true value marks the record as deleted in the CRM."""
    empty: str | None = None
    """What the CRM writes for no value, where that is not null: read as null, and sent to clear a field."""

    @field_validator("id", "modified", mode="before", json_schema_input_type=Path | tuple[Path, ...])
    @classmethod
    def _one_path_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class TimeFilter(_Section):
    """A query parameter that restricts a listing by modification time."""

    param: str
    format: FilterTimeForm = "iso"
    """``iso``, ``epoch``, ``epoch_ms`` or a strftime pattern."""
    zone: ZoneName = "UTC"
    template: str = "{time}"
    """The parameter's value, with ``{time}`` where the time goes: ``modified gt {time}``."""
    params: dict[str, str] = Field(default_factory=dict)
    """Parameters that go with it, and only with it."""

    @model_validator(mode="after")
    def _holds_the_time(self) -> TimeFilter:
        return _holding(self, "template", "{time}")


class Listing(_Section):
    """How records are listed."""

    path: FixedUrlPath = ""
    """Below ``base_url``; empty when that URL is the list itself."""
    params: dict[str, str] = Field(default_factory=dict)
    page_size: Annotated[int, Field(ge=1, le=10_000)] = 100
    modified_since: TimeFilter | None = None
    modified_before: TimeFilter | None = None
    sorted_by_modified: bool = False
    """True when pages come oldest change first: the watermark may then move page by page."""
    overlap_seconds: Annotated[int, Field(ge=0)] = 300
    """How far behind the watermark a read starts again: indexes lag and times tie."""
    lag_seconds: Annotated[int, Field(ge=0)] = 0
    """How long a new record may stay invisible to listings and searches."""


class PageStyle(StrEnum):
    """How a listing goes from one page to the next."""

    DETECT = "detect"
    NONE = "none"
    PAGE = "page"
    OFFSET = "offset"
    CURSOR = "cursor"
    NEXT_LINK = "next_link"
    LINK_HEADER = "link_header"
    HEADER_CURSOR = "header_cursor"


class Pagination(_Section):
    """Names and places of the paging parameters."""

    style: PageStyle = PageStyle.DETECT
    page_param: str = "page"
    first_page: int = 1
    size_param: str | None = None
    """Parameter that carries the page size; not sent when empty."""
    offset_param: str = "offset"
    cursor_param: str = "cursor"
    cursor_path: Path = "next_cursor"
    cursor_header: HeaderName = "X-Next-Cursor"
    next_path: Path = "next"
    total_path: Path | None = None
    """Where the body says how many records there are: numbered pages end there."""
    max_pages: Annotated[int, Field(ge=1)] = 100_000


class Call(_Section):
    """One kind of request: method, path and envelope."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: UrlPathWithId
    """Below ``base_url``; ``{id}`` is the record's id, percent-encoded."""
    envelope: Path | None = None
    """Key the body is wrapped in, such as ``data``."""
    record: Path | None = None
    """Where the answer holds the record; the whole answer when not given."""


class BatchCall(_Section):
    """A request that writes many records; the answer lists one result for each."""

    method: Literal["POST", "PUT", "PATCH"] = "POST"
    path: FixedUrlPath
    envelope: Path | None = None
    size: Annotated[int, Field(ge=1, le=10_000)] = 100
    id_field: Path = "id"
    """Where each item carries the record's id."""
    results: Path | None = None
    """Where the answer lists its results, in the order sent; detected when not given."""
    result_record: Path | None = None
    """Where one result holds the record; the result itself when not given."""
    result_status: Path = "status"
    result_error: Path = "error"


class Lookup(_Section):
    """A listing that finds records by the contact's own unique value."""

    path: FixedUrlPath = ""
    param: str
    """Query parameter that carries the contact's WhatsApp id as the CRM writes it."""
    template: str = "{value}"
    """The parameter's value, with ``{value}`` where the id goes; there it is escaped as in JSON."""
    params: dict[str, str] = Field(default_factory=dict)
    """Parameters that go with it."""

    @model_validator(mode="after")
    def _holds_the_value(self) -> Lookup:
        return _holding(self, "template", "{value}")


class Writing(_Section):
    """How records are created, read and changed."""

    read: Call | None = Call(method="GET", path="/{id}")
    create: Call = Call(method="POST", path="")
    update: Call = Call(method="PATCH", path="/{id}")
    """PATCH sends the changed fields; PUT sends the whole record with the changes in it."""
    batch_create: BatchCall | None = None
    batch_update: BatchCall | None = None
    upsert_by: str | None = None
    """The CRM's own name of the unique field that holds the WhatsApp id. The vendors' connectors
    create by it, so that a repeated create cannot make a second record."""
    bulk_from: Annotated[int, Field(ge=1)] | None = None
    """For ``salesforce``: so many creates, or changes, at once go out as a job of the Bulk API."""
    lookup: Lookup | None = None
    time_format: TimeForm = "iso"
    """How times are written: ``iso`` in UTC, or a strftime pattern."""
    time_zone: ZoneName = "UTC"
    """Zone of times that are written by a pattern."""
    idempotency_header: HeaderName | None = "Idempotency-Key"
    if_unmodified_since: bool = False
    """Send ``If-Unmodified-Since`` with a single change: the CRM answers 412 rather than let
    us overwrite what we have not seen. Only where the CRM knows the header."""

    @model_validator(mode="after")
    def _single_records_have_a_place(self) -> Writing:
        for name, call in (("read", self.read), ("update", self.update)):
            if call is not None and "{id}" not in call.path:
                msg = f"{name}.path: must hold {{id}}, or it would mean the whole collection"
                raise ValueError(msg)
        return self


class Direction(StrEnum):
    """Which way a field travels."""

    BOTH = "both"
    IN = "in"
    OUT = "out"


class Policy(StrEnum):
    """Who wins when both sides changed one field differently."""

    EXTERNAL = "external"
    INTERNAL = "internal"
    NEWEST = "newest"
    MANUAL = "manual"


class FieldRule(_Section):
    """How one contact field is read from and written to the CRM's records."""

    names: tuple[Path, ...] | None = None
    """External paths, first present wins; empty keeps the built-in names."""
    write: Path | None = None
    """External path that is written; the name the record already uses when not given."""
    parts: tuple[Path, ...] | None = None
    """For a text kept in several places, such as a first and a last name: read joined by blanks;
    written with its last word in the last place and the rest in the first. In place of ``names``."""
    placeholder: Annotated[str, Field(min_length=1)] | None = None
    """For a text that the CRM will not leave empty: sent in place of nothing, and read as nothing."""
    type: FieldType | None = None
    """Required for a field of your own; the built-in fields have theirs."""
    direction: Direction = Direction.BOTH
    policy: Policy | None = None
    choices: tuple[str, ...] | None = None
    synonyms: dict[str, str] = Field(default_factory=dict)
    """For ``choice``: what the CRM says, in any case, and what it means here."""

    @field_validator("names", mode="before", json_schema_input_type=Path | tuple[Path, ...] | None)
    @classmethod
    def _one_name_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class Merge(_Section):
    """How conflicts are settled where a field does not say."""

    policy: Policy = Policy.NEWEST
    tie: Literal["external", "internal"] = "external"
    """Who wins under ``newest`` when the two times are too close to call."""
    clock_tolerance_seconds: Annotated[int, Field(ge=0)] = 120


class Deletes(_Section):
    """What a record that was deleted in the CRM means here."""

    policy: Literal["archive", "keep"] = "archive"
    """``archive`` marks the contact and never drops it; ``keep`` leaves it as it is."""
    max_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """More than this share of the linked contacts in one run stops and asks."""
    always_allowed: Annotated[int, Field(ge=0)] = 10
    """So many are never too many, however few contacts there are."""


class Signature(_Section):
    """How webhooks are signed over their raw body; the keys are those in EXTERNAL_CRM_WEBHOOK_SECRET."""

    scheme: Literal["standard", "hubspot", "hubspot_v2", "hubspot_v1", "hmac"]
    """``standard`` is Standard Webhooks, ``hubspot`` version 3; ``hmac`` is described by what follows."""
    header: HeaderName = "X-Signature"
    value: str = "{digest}"
    """What the header says: ``{digest}``, with ``{timestamp}`` and ``{id}`` where it holds them."""
    signed: str = "{body}"
    """What is signed: ``{body}``, with ``{timestamp}``, ``{id}``, ``{method}`` and ``{url}``."""
    algorithm: Literal["sha256", "sha384", "sha512", "sha1"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    wrapped: Literal["base64"] | None = None
    """What the whole of ``value`` is written in, in the header."""
    timestamp_header: HeaderName | None = None
    """For a time that is not in ``value``."""
    timestamp_unit: Literal["seconds", "milliseconds"] = "seconds"
    id_header: HeaderName | None = None
    """For an id that is not in ``value``."""
    tolerance_seconds: Annotated[int, Field(ge=1, le=3600)] = 300
    """How old, or how far ahead, a signed time may be."""
    public_url: CrmUrl | None = None
    """The address webhooks are sent to, where it is signed and a proxy changes it."""

    @model_validator(mode="after")
    def _only_hmac_is_described(self) -> Signature:
        described = sorted(self.model_fields_set & _OF_HMAC)
        if self.scheme != "hmac" and described:
            msg = f"webhook.signature.{described[0]}: goes with 'scheme: hmac'; '{self.scheme}' has its own"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _templates_fit(self) -> Signature:
        found = _PLACEHOLDER.findall(self.value)
        named, signed = set(found), set(_PLACEHOLDER.findall(self.signed))
        once = len(named) == len(found)
        if not once or "digest" not in named or not named <= {"digest", "timestamp", "id"}:
            msg = "webhook.signature.value: must hold {digest}, and may hold {timestamp} and {id}, each once"
            raise ValueError(msg)
        if "body" not in signed or not signed <= {"body", "timestamp", "id", "method", "url"}:
            msg = (
                "webhook.signature.signed: must hold {body}, and may hold {timestamp}, {id}, {method}, {url}"
            )
            raise ValueError(msg)
        sent = named | {"timestamp"} if self.timestamp_header else named
        if ("timestamp" in signed) != ("timestamp" in sent):
            msg = (
                "webhook.signature.signed: {timestamp} must be signed if it is sent, and sent if it is signed"
            )
            raise ValueError(msg)
        if "id" in signed and "id" not in named and self.id_header is None:
            msg = "webhook.signature.signed: holds {id}, which neither value nor id_header says where to find"
            raise ValueError(msg)
        return self


_OF_HMAC = frozenset(
    {"header", "value", "signed", "algorithm", "encoding", "wrapped", "timestamp_header", "timestamp_unit"}
    | {"id_header"}
)
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


_OF_FORMAT: dict[str, dict[str, object]] = {
    "hubspot": {"read_back": True, "signature": {"scheme": "hubspot"}},
    "salesforce": {"read_back": True},
    "zoho": {"read_back": True, "secret": "token"},
}


class Webhook(_Section):
    """What the CRM's webhooks look like, and how they prove where they come from."""

    format: Literal["records", "hubspot", "salesforce", "zoho"] = "records"
    """``records`` are the guide's; the others are the vendors' own events, which need no API key."""
    read_back: bool = False
    """An event is a hint: the record it names is read from the CRM before it is applied."""
    signature: Signature | None = None
    """Takes the place of the secret in the body, and of the API key, which not every CRM can send."""
    secret: str = "secret"  # noqa: S105 - the name of a key
    """Key of the body's object that holds the secret, where webhooks are not signed; for
    ``salesforce``, whose messages have no room for one, the parameter of the address."""
    organization: str | None = None
    """For ``salesforce``: the organisation's id; messages of others are refused."""
    records: Path | None = None
    """Where the body holds its record, or its list of them; the body itself when not given."""
    id: Path | None = None
    """Where an event names the record it is about; as in ``records.id`` when not given."""
    event_id: Path | None = None
    """Where a record names its event; the header ``webhook-id`` or ``Idempotency-Key`` does otherwise."""
    public_url: CrmUrl | None = None
    """For ``zoho``: the address notifications are sent to. A schedule then keeps the channel that Zoho
    sends them through."""

    @model_validator(mode="before")
    @classmethod
    def _formats_bring_their_ways(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        return {**_OF_FORMAT.get(str(data.get("format")), {}), **data}

    @model_validator(mode="after")
    def _formats_are_whole(self) -> Webhook:
        if self.format == "records":
            return self
        if self.records is not None or self.event_id is not None:
            msg = f"webhook.format: '{self.format}' says itself where 'records' and 'event_id' are"
            raise ValueError(msg)
        if not self.read_back and self.format != "salesforce":
            msg = f"webhook.read_back: events of '{self.format}' name records and do not carry them"
            raise ValueError(msg)
        if self.format == "hubspot" and self.signature is None:
            msg = "webhook.signature: HubSpot's events hold no secret, only a signature proves them"
            raise ValueError(msg)
        return self


class Selection(_Section):
    """Which records and contacts are synced at all, by values of contact fields."""

    inward: dict[str, tuple[str | int | float | bool | None, ...]] = Field(default_factory=dict)
    """A record is taken only if each field named here holds one of its values."""
    outward: dict[str, tuple[str | int | float | bool | None, ...]] = Field(default_factory=dict)
    """A contact is pushed only if each field named here holds one of its values."""


class Limits(_Section):
    """Bounds on what one CRM may cost us."""

    connect_timeout: Annotated[float, Field(gt=0)] = 5.0
    read_timeout: Annotated[float, Field(gt=0)] = 30.0
    retries: Annotated[int, Field(ge=0, le=10)] = 4
    max_retry_wait: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait before a repeat, in seconds, whatever ``Retry-After`` asks for."""
    total_timeout: Annotated[float, Field(gt=0)] = 300.0
    """Longest time for one request, in seconds: repeats, waits and a trickling answer included."""
    in_flight: Annotated[int, Field(ge=1, le=16)] = 4
    """Requests of one process under way at once, where their order does not matter; 1: one after another."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    max_json_depth: Annotated[int, Field(ge=4)] = 64


class Retention(_Section):
    """How long what has served its purpose is kept, in days; contacts and open matters stay."""

    landed_days: Annotated[int, Field(ge=1)] = 90
    """Older versions of records, applied webhooks, and writes that have ended."""
    history_days: Annotated[int, Field(ge=1)] = 730
    """Changes of contacts, and settled conflicts."""
    runs_days: Annotated[int, Field(ge=1)] = 90
    """Runs, ours and Dagster's, with their events."""


class Budget(_Section):
    """How many calls the account allows; all processes that share the database keep to it together."""

    calls: Annotated[int, Field(ge=1)] | None = None
    """Calls in one window; unbounded when not given. A CRM that tells its limit can only lower it."""
    window_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    reserve: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the window, and of the day, kept free for single pushes that people wait for."""
    daily_calls: Annotated[int, Field(ge=1)] | None = None
    """Calls in one day; what the CRM tells of its own quota counts as well."""
    daily_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Our share of the day's calls: others use the account, too. Then calls stop until it has room."""
    backfill_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """What of all that is for reading windows again, so that polls and pushes go on beside a backfill."""


class Connection(_Section):
    """One configured CRM account."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")] = "default"
    type: ConnectorType = ConnectorType.GENERIC
    base_url: CrmUrl = ""
    auth: Auth = Auth()
    headers: dict[HeaderName, str] = Field(default_factory=dict)
    records: Records = Records()
    listing: Listing = Listing()
    pagination: Pagination = Pagination()
    writing: Writing = Writing()
    limits: Limits = Limits()
    budget: Budget = Budget()
    merge: Merge = Merge()
    deletes: Deletes = Deletes()
    retention: Retention = Retention()
    select: Selection = Selection()
    webhook: Webhook = Webhook()
    fields: dict[str, FieldRule] = Field(default_factory=dict)
    timezone: ZoneName = "UTC"
    """Zone of external times that carry none."""
    default_region: Region = "ID"

    @model_validator(mode="after")
    def _filters_do_not_hide_each_other(self) -> Connection:
        since, before = self.listing.modified_since, self.listing.modified_before
        if since is not None and before is not None and since.param == before.param:
            msg = "listing.modified_before: needs another 'param' than modified_since, or leave it out"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _suits_its_vendor(self) -> Connection:
        check_vendor(self)
        return self

    @model_validator(mode="after")
    def _selected_fields_exist(self) -> Connection:
        for way in ("inward", "outward"):
            for name in getattr(self.select, way):
                if name not in BUILT_IN and name not in self.fields:
                    msg = f"select.{way}.{name}: is not a field of a contact"
                    raise ValueError(msg)
                choices = self._choices_of(name)
                strange = [
                    value for value in getattr(self.select, way)[name] if choices and value not in choices
                ]
                if strange and strange != [None]:
                    msg = f"select.{way}.{name}: '{strange[0]}' is not one of the field's choices"
                    raise ValueError(msg)
        return self

    def _choices_of(self, name: str) -> tuple[str, ...]:
        rule, built_in = self.fields.get(name), BUILT_IN.get(name)
        return (rule.choices if rule else None) or (built_in.choices if built_in else ())

    @model_validator(mode="after")
    def _own_fields_have_a_type(self) -> Connection:
        for name, rule in self.fields.items():
            if name in _COLUMNS:
                msg = f"fields.{name}: goes by its column's name here: {_COLUMNS[name]}"
                raise ValueError(msg)
            if name in RESERVED:
                msg = f"fields.{name}: is a column of the contact table that the pipeline keeps; take another"
                raise ValueError(msg)
            if rule.parts is not None and (len(rule.parts) < 2 or rule.names or rule.write):  # noqa: PLR2004
                msg = f"fields.{name}.parts: are two or more paths, without 'names' and 'write'"
                raise ValueError(msg)
            kind = BUILT_IN[name].type if name in BUILT_IN else rule.type
            if rule.parts is not None and kind is not FieldType.TEXT:
                msg = f"fields.{name}.parts: only text comes in parts"
                raise ValueError(msg)
            if rule.placeholder is not None and kind is not FieldType.TEXT:
                msg = f"fields.{name}.placeholder: only text has one"
                raise ValueError(msg)
            if name not in BUILT_IN and (rule.type is None or not (rule.names or rule.parts)):
                msg = f"fields.{name}: a field of your own needs 'type' and 'names'"
                raise ValueError(msg)
            if rule.type is FieldType.CHOICE and not rule.choices:
                msg = f"fields.{name}: a choice needs 'choices'"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _rules_fit_the_fields(self) -> Connection:
        for name, rule in self.fields.items():
            built_in = BUILT_IN.get(name)
            if built_in is not None and rule.type not in (None, built_in.type):
                msg = f"fields.{name}: its 'type' is {built_in.type} and cannot be another"
                raise ValueError(msg)
            choices = rule.choices or (built_in.choices if built_in is not None else ())
            strange = [meant for meant in rule.synonyms.values() if meant not in choices]
            if strange:
                msg = f"fields.{name}.synonyms: '{strange[0]}' is not one of the field's choices"
                raise ValueError(msg)
        return self
