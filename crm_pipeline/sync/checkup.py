"""A checkup: does everything a sync needs hold, and what is to be done where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy.engine import Engine

from crm_pipeline import instants
from crm_pipeline.connection import Connection, ConnectorType, Direction
from crm_pipeline.connectors.base import (
    Connector,
    ConnectorError,
    ConnectorSetupError,
    CrmField,
    CrmRefusedError,
    CrmUnavailableError,
    Page,
    Record,
    Window,
)
from crm_pipeline.contact import FieldType
from crm_pipeline.store import channels
from crm_pipeline.store.engine import reading
from crm_pipeline.store.migrate import is_current
from crm_pipeline.sync.budget import SharedBudget
from crm_pipeline.sync.errors import RecordRejected
from crm_pipeline.sync.mapping import CompiledField, FieldMapping
from crm_pipeline.sync.paths import held

_CLOCKS_MAY_DIFFER = timedelta(seconds=60)
_KINDS = {
    FieldType.INTEGER: {"number", "text"},
    FieldType.NUMBER: {"number", "text"},
    FieldType.INSTANT: {"time", "text"},
    FieldType.BOOLEAN: {"boolean", "text", "choice"},
}
"""What the CRM may keep a type in; text and choices fit into each other, and into nothing else."""


class Grade(StrEnum):
    """How a finding stands."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    grade: Grade
    text: str
    cure: str = ""
    """What to do about it."""


def look_at_database(engine: Engine) -> Finding:
    """Whether the database is there and has the shape this version needs."""
    if is_current(engine):
        return Finding("database", Grade.GOOD, "there, and of the right shape")
    return Finding("database", Grade.BAD, "older than this version", "run crm-pipeline db upgrade")


def look_at_crm(
    connection: Connection,
    mapping: FieldMapping,
    connect: Callable[[], Connector],
    budget: SharedBudget | None,
    *,
    writes: bool,
) -> Iterator[Finding]:
    """Whether the CRM lets us in, tells the time, and has the fields of the mapping.

    ``writes``: whether it may be written to, and so must let us.
    """
    try:
        connector = connect()
        schema = connector.schema()
    except ConnectorError as error:
        yield _not_let_in(error)
        return
    try:
        page = next(iter(connector.pages(Window())))
    except ConnectorError as error:
        # A field that is not there can be all that is wrong with the listing.
        if schema is not None:
            yield from _by_schema(connection, mapping, {field.path: field for field in schema})
        yield _not_let_in(error)
        return
    yield Finding("CRM", Grade.GOOD, f"lets us read; {len(page.records)} records on the first page")
    yield _clock(page)
    if schema is None:
        yield from _by_records(mapping, page.records)
    else:
        yield from _by_schema(connection, mapping, {field.path: field for field in schema})
    yield _records(mapping, page.records)
    if writes:
        yield from _writing(connection, connector)
    if budget is not None:
        yield _budget(budget)


_MAY_WRITE = {
    ConnectorType.HUBSPOT: "give the app the scope crm.objects.contacts.write",
    ConnectorType.SALESFORCE: "let the app's user create and edit contacts",
    ConnectorType.ZOHO: "make the refresh token with the scope ZohoCRM.modules.contacts.ALL",
}


def _writing(connection: Connection, connector: Connector) -> Iterator[Finding]:
    """Whether the credentials allow what a push needs."""
    try:
        refusal = connector.refuses_writes()
    except ConnectorError as error:
        yield Finding("writing", Grade.DOUBTFUL, f"cannot be told: {error}", "try again later")
        return
    if refusal:
        cure = f"{_MAY_WRITE[connection.type]}, or set EXTERNAL_CRM_PUSH=off"
        yield Finding("writing", Grade.BAD, refusal, cure)
    elif refusal is not None:
        yield Finding("writing", Grade.GOOD, "we may create and change contacts")


def _not_let_in(error: ConnectorError) -> Finding:
    cure = "see Troubleshooting"
    if isinstance(error, CrmUnavailableError):
        cure = "check the URL and the network, or try again later"
    elif isinstance(error, CrmRefusedError):
        cure = "check EXTERNAL_CRM_API_KEY or auth, the key's scopes, and the URL"
    elif isinstance(error, ConnectorSetupError):
        cure = "mend the setting that is named"
    return Finding("CRM", Grade.BAD, str(error), cure)


def _clock(page: Page) -> Finding:
    if page.server_time is None:
        return Finding(
            "clock", Grade.DOUBTFUL, "the CRM does not tell its time", "keep this machine's clock right"
        )
    apart = abs(page.server_time - page.read_at)
    text = f"{apart.total_seconds():.0f} seconds apart from the CRM's"
    if apart <= _CLOCKS_MAY_DIFFER:
        return Finding("clock", Grade.GOOD, text)
    return Finding("clock", Grade.DOUBTFUL, text, "set this machine's clock by a time server")


def _by_schema(
    connection: Connection, mapping: FieldMapping, schema: dict[str, CrmField]
) -> Iterator[Finding]:
    """Hold each field of the mapping against what the CRM says it has."""
    found = [finding for field in mapping.fields.values() for finding in _field(field, schema)]
    yield from found
    if not found:
        text = f"all {len(mapping.fields)} are there, fit, and can be written where they have to be"
        yield Finding("fields", Grade.GOOD, text)
    yield from _unique(connection, schema)


def _unique(connection: Connection, schema: dict[str, CrmField]) -> Iterator[Finding]:
    unique = connection.writing.upsert_by
    if unique is None:
        return
    prefix = "properties." if connection.type is ConnectorType.HUBSPOT else ""
    found = schema.get(f"{prefix}{unique}")
    if found is not None and found.unique:
        yield Finding(unique, Grade.GOOD, "there, and unique: a repeated create makes no second record")
    else:
        what = (
            "is not there" if found is None else "is not unique: a repeated create could make a second record"
        )
        yield Finding(unique, Grade.BAD, what, "make it as a unique field, or set writing.upsert_by")


def _field(field: CompiledField, schema: dict[str, CrmField]) -> Iterator[Finding]:
    named = field.parts or field.paths
    there = [schema[path] for path in named if path in schema]
    related = any("." in path and path.partition(".")[0] != "properties" for path in named)
    if not there and not related:
        names = ", ".join(named)
        yield Finding(
            field.json_name,
            Grade.BAD,
            f"the CRM has no {names}",
            f"make it there, or name another in fields.{field.name}",
        )
        return
    if field.direction is Direction.IN:
        return
    written = (field.write,) if field.write else field.parts or named[:1]
    missing = [path for path in written if path not in schema]
    if missing and not related:
        text = f"the CRM has no {', '.join(missing)}, which would be written"
        yield Finding(field.json_name, Grade.BAD, text, f"mend fields.{field.name}")
    target = schema.get(written[0])
    if target is None:
        return
    if not target.writable:
        yield Finding(
            field.json_name, Grade.BAD, f"{target.path} is read-only", f"fields.{field.name}: direction: in"
        )
    if target.kind and target.kind not in _KINDS.get(field.type, {"text", "choice"}):
        text = f"{target.path} is a {target.kind}, and ours is {field.type}"
        yield Finding(field.json_name, Grade.BAD, text, "change its type there, or name another field")
    strange = [choice for choice in field.choices if target.options and choice not in target.options]
    if strange:
        text = f"{target.path} has no option {', '.join(strange)}"
        yield Finding(field.json_name, Grade.BAD, text, f"add it there, or set fields.{field.name}.choices")


def _by_records(mapping: FieldMapping, records: Sequence[Record]) -> Iterator[Finding]:
    """Name the fields that no record of the first page holds."""
    payloads = [record.payload for record in records if isinstance(record.payload, dict)]
    for field in mapping.fields.values() if payloads else ():
        named = field.parts or field.paths
        if not any(held(payload, path)[0] for payload in payloads for path in named):
            text = f"no record on the first page holds {' or '.join(named)}"
            yield Finding(field.json_name, Grade.DOUBTFUL, text, f"name the CRM's in fields.{field.name}")


def _records(mapping: FieldMapping, records: Sequence[Record]) -> Finding:
    """Whether the first page's records become contacts."""
    wrong = 0
    for record in records:
        try:
            wrong += "id" not in mapping.to_contact(record.payload)
        except RecordRejected:
            wrong += 1
    text = f"{len(records) - wrong} of {len(records)} on the first page become contacts"
    if not wrong:
        return Finding("records", Grade.GOOD, text)
    grade = Grade.BAD if wrong == len(records) else Grade.DOUBTFUL
    return Finding("records", grade, text, "crm-pipeline mapping preview says why")


def look_at_channel(
    engine: Engine, connection: Connection, now: datetime, *, has_token: bool
) -> Iterator[Finding]:
    """Until when the CRM tells of changes, where it has to be asked for that."""
    if connection.webhook.public_url is None:
        return
    if not has_token:
        text = "webhook.public_url is set, and no secret to be the channel's token"
        yield Finding("channel", Grade.BAD, text, "set EXTERNAL_CRM_WEBHOOK_SECRET")
        return
    with reading(engine) as tx:
        kept = channels.load(tx, connection.name)
    cure = "let Dagster's watch_schedule run, which makes and renews it"
    if kept is None:
        yield Finding("channel", Grade.DOUBTFUL, "Zoho has not been asked for notifications yet", cure)
    elif kept.expires_at <= now:
        yield Finding("channel", Grade.BAD, f"ended at {instants.to_text(kept.expires_at)}", cure)
    else:
        text = f"Zoho tells of changes until {instants.to_text(kept.expires_at)}"
        yield Finding("channel", Grade.GOOD, text)


def _budget(budget: SharedBudget) -> Finding:
    spent = budget.spent()
    text = f"{spent.today} calls of ours today"
    if spent.daily_left is not None:
        text += f"; the CRM has {spent.daily_left} left"
    return Finding("budget", Grade.GOOD, text)
