"""The tables. Every row of ours carries its connection; ``contacts`` belongs to everybody."""

from __future__ import annotations

import sqlalchemy as sa

from crm_pipeline.store.types import Instant, Json, OpenJson, utc_now

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_RowId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite numbers rows by itself only in a column of exactly this type."""


def _connection(*, key: bool = False) -> sa.Column[str]:
    return sa.Column("connection", sa.Text, primary_key=key, nullable=False)


contacts = sa.Table(
    "contacts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("nama", sa.Text),
    sa.Column("instansi", sa.Text),
    sa.Column("event", sa.Text),
    sa.Column("ticket_price", sa.BigInteger),
    sa.Column("capacity", sa.BigInteger),
    sa.Column("deal_status", sa.Text, nullable=False, server_default="prospect"),
    sa.Column("notes", sa.Text),
    sa.Column("cp_first", sa.Text),
    sa.Column("cp_second", sa.Text),
    sa.Column("ig_link", sa.Text),
    sa.Column("pic", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("meeting_date", Instant),
    sa.Column("ticket_sale_date", Instant),
    sa.Column("event_day_date", Instant),
    sa.Column("custom", OpenJson, nullable=False, server_default="{}"),
    sa.Column("created_at", Instant, nullable=False, server_default=utc_now()),
    sa.Column("updated_at", Instant, nullable=False, server_default=utc_now()),
    sa.Column("archived_at", Instant),
    # Moves with every change of the row, whoever makes it (a trigger watches other programs).
    sa.Column("row_version", sa.BigInteger, nullable=False, server_default="1"),
    # The version up to which there is nothing left to tell the CRM.
    sa.Column("pushed_version", sa.BigInteger, nullable=False, server_default="0"),
)
sa.Index("ix_contacts_to_push", contacts.c.id, sqlite_where=sa.text("row_version <> pushed_version"),
         postgresql_where=sa.text("row_version <> pushed_version"))  # fmt: skip
ODDLY_SPELLED = (
    "row_version <> pushed_version AND (id NOT LIKE '%@c.us' AND id NOT LIKE '%@lid' OR id LIKE '0%'"
    " OR id LIKE '+%' OR id LIKE '(%' OR id LIKE '% %' OR id LIKE '%-%' OR id LIKE '%:%')"
)
"""Of contacts that have something to tell the CRM, those whose ids programs spelled their own way."""
sa.Index("ix_contacts_oddly_spelled", contacts.c.id, sqlite_where=sa.text(ODDLY_SPELLED),
         postgresql_where=sa.text(ODDLY_SPELLED))  # fmt: skip

contact_aliases = sa.Table(
    "contact_aliases",
    metadata,
    # Another id of the contact, in canonical spelling: an earlier phone, a lid, or the
    # canonical form of an id that another program stored in a spelling of its own.
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("contact_id", sa.Text, nullable=False, index=True),
    sa.Column("created_at", Instant, nullable=False, server_default=utc_now()),
)

links = sa.Table(
    "links",
    metadata,
    _connection(key=True),
    sa.Column("external_id", sa.Text, primary_key=True),
    sa.Column("contact_id", sa.Text, nullable=False),
    # What each side held when the two were last in agreement, by field, canonical.
    sa.Column("internal_shadow", Json, nullable=False),
    sa.Column("external_shadow", Json, nullable=False),
    # Fields whose external shadow is what we wrote, not yet what the CRM has shown.
    sa.Column("assumed", Json),
    # Contact values noticed as changed and not settled yet: field -> [value, when].
    sa.Column("edits", Json),
    sa.Column("external_modified_at", Instant),
    # When the record was last read, as far as it was applied: older news is no news.
    sa.Column("read_at", Instant),
    sa.Column("external_deleted_at", Instant),
    sa.Column("contact_deleted_at", Instant),
    # Since when a rule or a hook leaves the record out.
    sa.Column("left_at", Instant),
    sa.Column("created_at", Instant, nullable=False, server_default=utc_now()),
    sa.UniqueConstraint("contact_id", "connection"),
)

sa.Index("ix_links_contact_deleted", links.c.connection, links.c.contact_id,
         sqlite_where=sa.text("contact_deleted_at IS NOT NULL"),
         postgresql_where=sa.text("contact_deleted_at IS NOT NULL"))  # fmt: skip

external_records = sa.Table(
    "external_records",
    metadata,
    sa.Column("id", _RowId, primary_key=True, autoincrement=True),
    _connection(),
    sa.Column("external_id", sa.Text, nullable=False),
    sa.Column("modified_at", Instant),
    sa.Column("content_hash", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False, default=False),
    # Our clock before the request that brought it: what is newer than this it cannot know.
    sa.Column("read_at", Instant, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    # The newest version of its record; older ones stay until retention takes them.
    sa.Column("current", sa.Boolean, nullable=False),
    # Empty while it waits to be applied.
    sa.Column("outcome", sa.Text),
    sa.Column("applied_at", Instant),
)
sa.Index("uq_external_records_current", external_records.c.connection, external_records.c.external_id,
         unique=True, sqlite_where=sa.text("current"), postgresql_where=sa.text("current"))  # fmt: skip
CURRENT: sa.ColumnElement[bool] = sa.literal_column("external_records.current")
"""The version of a record that was read last. As the column, SQLite would be asked for ``current = 1``, and
for that does not use the index: every page of a pull then costs a look at all records."""
sa.Index("ix_external_records_waiting", external_records.c.connection, external_records.c.id,
         sqlite_where=sa.text("outcome IS NULL"), postgresql_where=sa.text("outcome IS NULL"))  # fmt: skip

webhook_events = sa.Table(
    "webhook_events",
    metadata,
    sa.Column("id", _RowId, primary_key=True, autoincrement=True),
    _connection(),
    # The sender's name for it, or ours where it has none: the same name is the same event.
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("received_at", Instant, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("content_hash", sa.Text, nullable=False),
    # Whom it is about, as far as it says so: the contact's canonical id, the record's id.
    sa.Column("contact_id", sa.Text),
    sa.Column("external_id", sa.Text),
    # What applying it would have done when it was received, and what it did.
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text),
    sa.Column("reasons", Json),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("next_attempt_at", Instant),
    sa.Column("applied_at", Instant),
    sa.Column("run_id", sa.Text),
    sa.UniqueConstraint("connection", "event_id"),
)
sa.Index("ix_webhook_events_waiting", webhook_events.c.connection, webhook_events.c.id,
         sqlite_where=sa.text("outcome IS NULL"), postgresql_where=sa.text("outcome IS NULL"))  # fmt: skip
sa.Index(
    "ix_webhook_events_contact", webhook_events.c.connection, webhook_events.c.contact_id, webhook_events.c.id
)

sa.Index(
    "ix_webhook_events_record",
    webhook_events.c.connection,
    webhook_events.c.external_id,
    webhook_events.c.id,
    sqlite_where=sa.text("external_id IS NOT NULL"),
    postgresql_where=sa.text("external_id IS NOT NULL"),
)

intents = sa.Table(
    "intents",
    metadata,
    # Also the write's idempotency key.
    sa.Column("id", sa.Text, primary_key=True),
    _connection(),
    sa.Column("contact_id", sa.Text, nullable=False),
    sa.Column("external_id", sa.Text),
    # What the CRM was last seen to hold in these fields, and what is being written.
    sa.Column("before", Json, nullable=False),
    sa.Column("sent", Json, nullable=False),
    sa.Column("contact_version", sa.BigInteger, nullable=False),
    # open: nobody knows yet whether it arrived. Then confirmed, refused, failed, superseded.
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("closed_at", Instant),
    # The CRM's job that carries the write, where one does: stored before anything is sent.
    sa.Column("job", sa.Text),
)
sa.Index("uq_intents_open", intents.c.connection, intents.c.contact_id, unique=True,
         sqlite_where=sa.text("state = 'open'"), postgresql_where=sa.text("state = 'open'"))  # fmt: skip
sa.Index("ix_intents_confirmed", intents.c.connection, intents.c.contact_id, intents.c.closed_at,
         sqlite_where=sa.text("state = 'confirmed'"),
         postgresql_where=sa.text("state = 'confirmed'"))  # fmt: skip
sa.Index("ix_intents_closed", intents.c.connection, intents.c.closed_at,
         sqlite_where=sa.text("state = 'confirmed'"),
         postgresql_where=sa.text("state = 'confirmed'"))  # fmt: skip

contact_changes = sa.Table(
    "contact_changes",
    metadata,
    sa.Column("id", _RowId, primary_key=True, autoincrement=True),
    _connection(),
    sa.Column("contact_id", sa.Text, nullable=False, index=True),
    sa.Column("field", sa.Text, nullable=False),
    sa.Column("old", Json),
    sa.Column("new", Json),
    sa.Column("at", Instant, nullable=False),
    # Whose change it is: external or internal.
    sa.Column("side", sa.Text, nullable=False),
    # The verdict of the merge.
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    # The landed row it came from: external_records.id, or webhook_events.id.
    sa.Column("record_id", sa.BigInteger),
    sa.Column("event_id", sa.BigInteger),
)

conflicts = sa.Table(
    "conflicts",
    metadata,
    sa.Column("id", _RowId, primary_key=True, autoincrement=True),
    _connection(),
    sa.Column("contact_id", sa.Text, nullable=False),
    sa.Column("field", sa.Text, nullable=False),
    sa.Column("external", Json),
    sa.Column("internal", Json),
    sa.Column("policy", sa.Text, nullable=False),
    # external or internal; agreed, where the sides came to; moot, where one is gone. Empty while
    # it waits for a person.
    sa.Column("winner", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("record_id", sa.BigInteger),
    sa.Column("opened_at", Instant, nullable=False),
    sa.Column("settled_at", Instant),
)
sa.Index("uq_conflicts_open", conflicts.c.connection, conflicts.c.contact_id, conflicts.c.field, unique=True,
         sqlite_where=sa.text("state = 'open'"), postgresql_where=sa.text("state = 'open'"))  # fmt: skip

rejects = sa.Table(
    "rejects",
    metadata,
    sa.Column("id", _RowId, primary_key=True, autoincrement=True),
    _connection(),
    # pull, webhook or push, and what is rejected: a record's id, an event's or a contact's.
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    # The contact a record claims to be, where that is the trouble.
    sa.Column("contact_id", sa.Text),
    sa.Column("reasons", Json, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    # When it is tried again by itself; empty where only a change or a replay can help.
    sa.Column("next_attempt_at", Instant),
    sa.Column("record_id", sa.BigInteger),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("first_at", Instant, nullable=False),
    sa.Column("last_at", Instant, nullable=False),
    sa.UniqueConstraint("connection", "source", "key"),
)

connections = sa.Table(
    "connections",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("polling", sa.Boolean, nullable=False),
    sa.Column("watermark", Instant),
    # The pull under way: its window, where it goes on, and what it has seen so far.
    sa.Column("pull", Json),
    # Digest of the mapping that was used last.
    sa.Column("mapping", sa.Text),
    # When the newest complete pull, and the newest complete pull of everything, began.
    sa.Column("last_read_at", Instant),
    sa.Column("last_full_read_at", Instant),
)

forgotten = sa.Table(
    "forgotten",
    metadata,
    _connection(key=True),
    # Of an id of somebody who was forgotten, here or in the CRM.
    sa.Column("digest", sa.Text, primary_key=True),
    # The same for all ids of one person.
    sa.Column("person", sa.Text, nullable=False),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
)

budgets = sa.Table(
    "budgets",
    metadata,
    # A connection's name, or with a stroke and a lane's name behind it.
    sa.Column("name", sa.Text, primary_key=True),
    # When the last calls were made, how many today, and what the CRM told of its quota.
    sa.Column("state", Json, nullable=False),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("connection", sa.Text, primary_key=True),
    # Sealed with EXTERNAL_CRM_TOKEN_KEY: useless to whoever reads the database.
    sa.Column("sealed", sa.Text, nullable=False),
)

channels = sa.Table(
    "channels",
    metadata,
    sa.Column("connection", sa.Text, primary_key=True),
    sa.Column("channel_id", sa.Text, nullable=False),
    # Short digest of what the channel was made with: the address and the token.
    sa.Column("asked", sa.Text, nullable=False),
    sa.Column("renewed_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
)

observations = sa.Table(
    "observations",
    metadata,
    _connection(key=True),
    # Which check's.
    sa.Column("name", sa.Text, primary_key=True),
    # What it remembers: figures and field names; of the sample, where it goes on.
    sa.Column("state", Json, nullable=False),
)

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", _RowId, primary_key=True, autoincrement=True),
    _connection(),
    # What is wrong: a check's, a step's or a job's name.
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("grave", sa.Boolean, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("figures", Json, nullable=False),
    sa.Column("opened_at", Instant, nullable=False),
    sa.Column("seen_at", Instant, nullable=False),
    # Empty while it is wrong.
    sa.Column("closed_at", Instant),
    # Channels that have heard of its beginning, and those that are still to hear of how it stands.
    sa.Column("told", Json, nullable=False),
    sa.Column("waiting", Json, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    # When it is told next; empty when all have heard.
    sa.Column("due_at", Instant),
)
sa.Index("uq_alerts_open", alerts.c.connection, alerts.c.key, unique=True,
         sqlite_where=sa.text("closed_at IS NULL"),
         postgresql_where=sa.text("closed_at IS NULL"))  # fmt: skip

step_totals = sa.Table(
    "step_totals",
    metadata,
    _connection(key=True),
    sa.Column("step", sa.Text, primary_key=True),
    # Runs by their end, outcomes, calls by answer and length, seconds.
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("amount", sa.Double, nullable=False),
)

sync_runs = sa.Table(
    "sync_runs",
    metadata,
    sa.Column("id", _RowId, primary_key=True, autoincrement=True),
    _connection(),
    # pull, apply or push.
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("finished_at", Instant),
    # running, done or failed.
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("counts", Json),
    sa.Column("api_calls", sa.Integer, nullable=False, default=0),
    sa.Column("error", sa.Text),
)
sa.Index("ix_sync_runs_latest", sync_runs.c.connection, sync_runs.c.step, sync_runs.c.id)
