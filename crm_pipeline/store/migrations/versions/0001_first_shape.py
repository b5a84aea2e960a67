"""The first shape: contacts, links with two shadows, landing, intents, ledger.

Revision: 0001
Follows: nothing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from crm_pipeline.store.types import Instant, Json, OpenJson, utc_now

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_RowId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_DATA = (
    "id",
    "nama",
    "instansi",
    "event",
    "ticket_price",
    "capacity",
    "deal_status",
    "notes",
    "cp_first",
    "cp_second",
    "ig_link",
    "pic",
    "status",
    "meeting_date",
    "ticket_sale_date",
    "event_day_date",
    "custom",
    "archived_at",
)


def upgrade() -> None:
    """Apply."""
    _create_tables()
    triggers = _postgresql_triggers if op.get_bind().dialect.name == "postgresql" else _sqlite_triggers
    for statement in triggers():
        # Not sa.text(): the colons in the statements are no parameters.
        op.get_bind().exec_driver_sql(statement)


def _sqlite_triggers() -> list[str]:
    """Other programs' changes move the version; ours come with a version of their own."""
    differs = " OR ".join(f"NEW.{column} IS NOT OLD.{column}" for column in _DATA)
    now = "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')"
    return [
        f"""CREATE TRIGGER contacts_edited AFTER UPDATE OF {", ".join(_DATA)} ON contacts
            WHEN NEW.row_version <= OLD.row_version AND ({differs})
            BEGIN
                UPDATE contacts SET row_version = OLD.row_version + 1, updated_at = {now} WHERE id = NEW.id;
            END""",  # noqa: S608 - column names from this file
        """CREATE TRIGGER contacts_readdressed AFTER UPDATE OF id ON contacts WHEN NEW.id <> OLD.id
            BEGIN
                UPDATE links SET contact_id = 'deleted:' || external_id WHERE contact_id = NEW.id;
                UPDATE links SET contact_id = NEW.id WHERE contact_id = OLD.id;
                UPDATE contact_aliases SET contact_id = NEW.id WHERE contact_id = OLD.id;
                UPDATE intents SET contact_id = NEW.id WHERE contact_id = OLD.id AND state = 'open';
                UPDATE conflicts SET contact_id = NEW.id WHERE contact_id = OLD.id AND state = 'open';
                UPDATE contact_changes SET contact_id = NEW.id WHERE contact_id = OLD.id;
                DELETE FROM contact_aliases WHERE alias IN (OLD.id, NEW.id);
                INSERT INTO contact_aliases (alias, contact_id) VALUES (OLD.id, NEW.id);
            END""",
        f"""CREATE TRIGGER contacts_deleted AFTER DELETE ON contacts
            BEGIN
                UPDATE links SET contact_deleted_at = {now} WHERE contact_id = OLD.id;
                UPDATE conflicts SET state = 'settled', winner = 'moot', settled_at = {now}
                    WHERE contact_id = OLD.id AND state = 'open';
                DELETE FROM contact_aliases WHERE contact_id = OLD.id;
                DELETE FROM rejects WHERE source = 'push' AND key = OLD.id;
            END""",  # noqa: S608 - nothing from outside
        *(
            f"""CREATE TRIGGER contacts_id_is_text_{event.split()[0].lower()} BEFORE {event} ON contacts
                WHEN typeof(NEW.id) <> 'text' OR NEW.id = ''
                BEGIN
                    SELECT RAISE(ABORT, 'contacts.id must be text and not empty');
                END"""
            for event in ("INSERT", "UPDATE OF id")
        ),
    ]


def _postgresql_triggers() -> list[str]:
    """The same as on SQLite."""
    differs = " OR ".join(f"NEW.{column} IS DISTINCT FROM OLD.{column}" for column in _DATA)
    return [
        """CREATE FUNCTION crm_pipeline_contact_edited() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                NEW.row_version := OLD.row_version + 1;
                NEW.updated_at := clock_timestamp();
                RETURN NEW;
            END $$""",
        f"""CREATE TRIGGER contacts_edited BEFORE UPDATE OF {", ".join(_DATA)} ON contacts
            FOR EACH ROW WHEN (NEW.row_version <= OLD.row_version AND ({differs}))
            EXECUTE FUNCTION crm_pipeline_contact_edited()""",
        """CREATE FUNCTION crm_pipeline_contact_readdressed() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                UPDATE links SET contact_id = 'deleted:' || external_id WHERE contact_id = NEW.id;
                UPDATE links SET contact_id = NEW.id WHERE contact_id = OLD.id;
                UPDATE contact_aliases SET contact_id = NEW.id WHERE contact_id = OLD.id;
                UPDATE intents SET contact_id = NEW.id WHERE contact_id = OLD.id AND state = 'open';
                UPDATE conflicts SET contact_id = NEW.id WHERE contact_id = OLD.id AND state = 'open';
                UPDATE contact_changes SET contact_id = NEW.id WHERE contact_id = OLD.id;
                DELETE FROM contact_aliases WHERE alias IN (OLD.id, NEW.id);
                INSERT INTO contact_aliases (alias, contact_id) VALUES (OLD.id, NEW.id);
                RETURN NULL;
            END $$""",
        """CREATE TRIGGER contacts_readdressed AFTER UPDATE OF id ON contacts
            FOR EACH ROW WHEN (NEW.id <> OLD.id) EXECUTE FUNCTION crm_pipeline_contact_readdressed()""",
        """CREATE FUNCTION crm_pipeline_contact_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                UPDATE links SET contact_deleted_at = clock_timestamp() WHERE contact_id = OLD.id;
                UPDATE conflicts SET state = 'settled', winner = 'moot', settled_at = clock_timestamp()
                    WHERE contact_id = OLD.id AND state = 'open';
                DELETE FROM contact_aliases WHERE contact_id = OLD.id;
                DELETE FROM rejects WHERE source = 'push' AND key = OLD.id;
                RETURN NULL;
            END $$""",
        """CREATE TRIGGER contacts_deleted AFTER DELETE ON contacts
            FOR EACH ROW EXECUTE FUNCTION crm_pipeline_contact_deleted()""",
        "ALTER TABLE contacts ADD CONSTRAINT contacts_id_is_text CHECK (id <> '')",
    ]


def _create_tables() -> None:
    op.create_table(
        "conflicts",
        sa.Column("id", _RowId, autoincrement=True, nullable=False),
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("contact_id", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("external", Json(), nullable=True),
        sa.Column("internal", Json(), nullable=True),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("winner", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("record_id", sa.BigInteger(), nullable=True),
        sa.Column("opened_at", Instant(), nullable=False),
        sa.Column("settled_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conflicts")),
    )
    op.create_index(
        "uq_conflicts_open",
        "conflicts",
        ["connection", "contact_id", "field"],
        unique=True,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "connections",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("polling", sa.Boolean(), nullable=False),
        sa.Column("watermark", Instant(), nullable=True),
        sa.Column("pull", Json(), nullable=True),
        sa.Column("mapping", sa.Text(), nullable=True),
        sa.Column("last_read_at", Instant(), nullable=True),
        sa.Column("last_full_read_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_connections")),
    )
    op.create_table(
        "contact_aliases",
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("contact_id", sa.Text(), nullable=False),
        sa.Column("created_at", Instant(), server_default=utc_now(), nullable=False),
        sa.PrimaryKeyConstraint("alias", name=op.f("pk_contact_aliases")),
    )
    op.create_index(op.f("ix_contact_aliases_contact_id"), "contact_aliases", ["contact_id"], unique=False)
    op.create_table(
        "contact_changes",
        sa.Column("id", _RowId, autoincrement=True, nullable=False),
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("contact_id", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("old", Json(), nullable=True),
        sa.Column("new", Json(), nullable=True),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("record_id", sa.BigInteger(), nullable=True),
        sa.Column("event_id", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contact_changes")),
    )
    op.create_index(op.f("ix_contact_changes_contact_id"), "contact_changes", ["contact_id"], unique=False)
    op.create_table(
        "contacts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("nama", sa.Text(), nullable=True),
        sa.Column("instansi", sa.Text(), nullable=True),
        sa.Column("event", sa.Text(), nullable=True),
        sa.Column("ticket_price", sa.BigInteger(), nullable=True),
        sa.Column("capacity", sa.BigInteger(), nullable=True),
        sa.Column("deal_status", sa.Text(), server_default="prospect", nullable=False),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.Column("cp_first", sa.Text(), nullable=True),
        sa.Column("cp_second", sa.Text(), nullable=True),
        sa.Column("ig_link", sa.Text(), nullable=True),
        sa.Column("pic", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("meeting_date", Instant(), nullable=True),
        sa.Column("ticket_sale_date", Instant(), nullable=True),
        sa.Column("event_day_date", Instant(), nullable=True),
        sa.Column("custom", OpenJson(), server_default="{}", nullable=False),
        sa.Column("created_at", Instant(), server_default=utc_now(), nullable=False),
        sa.Column("updated_at", Instant(), server_default=utc_now(), nullable=False),
        sa.Column("archived_at", Instant(), nullable=True),
        sa.Column("row_version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("pushed_version", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contacts")),
    )
    op.create_index(
        "ix_contacts_to_push",
        "contacts",
        ["id"],
        unique=False,
        sqlite_where=sa.text("row_version <> pushed_version"),
        postgresql_where=sa.text("row_version <> pushed_version"),
    )
    op.create_table(
        "external_records",
        sa.Column("id", _RowId, autoincrement=True, nullable=False),
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("modified_at", Instant(), nullable=True),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("read_at", Instant(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("applied_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_external_records")),
    )
    op.create_index(
        "ix_external_records_waiting",
        "external_records",
        ["connection", "id"],
        unique=False,
        sqlite_where=sa.text("outcome IS NULL"),
        postgresql_where=sa.text("outcome IS NULL"),
    )
    op.create_index(
        "uq_external_records_current",
        "external_records",
        ["connection", "external_id"],
        unique=True,
        sqlite_where=sa.text("current"),
        postgresql_where=sa.text("current"),
    )
    op.create_table(
        "webhook_events",
        sa.Column("id", _RowId, autoincrement=True, nullable=False),
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("received_at", Instant(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("contact_id", sa.Text(), nullable=True),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("reasons", Json(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", Instant(), nullable=True),
        sa.Column("applied_at", Instant(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_events")),
        sa.UniqueConstraint("connection", "event_id", name=op.f("uq_webhook_events_connection_event_id")),
    )
    op.create_index(
        "ix_webhook_events_contact", "webhook_events", ["connection", "contact_id", "id"], unique=False
    )
    op.create_index(
        "ix_webhook_events_waiting",
        "webhook_events",
        ["connection", "id"],
        unique=False,
        sqlite_where=sa.text("outcome IS NULL"),
        postgresql_where=sa.text("outcome IS NULL"),
    )
    op.create_table(
        "intents",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("contact_id", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("before", Json(), nullable=False),
        sa.Column("sent", Json(), nullable=False),
        sa.Column("contact_version", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("closed_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_intents")),
    )
    op.create_index(
        "uq_intents_open",
        "intents",
        ["connection", "contact_id"],
        unique=True,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index(
        "ix_intents_confirmed",
        "intents",
        ["connection", "contact_id", "closed_at"],
        sqlite_where=sa.text("state = 'confirmed'"),
        postgresql_where=sa.text("state = 'confirmed'"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "links",
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("contact_id", sa.Text(), nullable=False),
        sa.Column("internal_shadow", Json(), nullable=False),
        sa.Column("external_shadow", Json(), nullable=False),
        sa.Column("assumed", Json(), nullable=True),
        sa.Column("edits", Json(), nullable=True),
        sa.Column("external_modified_at", Instant(), nullable=True),
        sa.Column("read_at", Instant(), nullable=True),
        sa.Column("external_deleted_at", Instant(), nullable=True),
        sa.Column("contact_deleted_at", Instant(), nullable=True),
        sa.Column("left_at", Instant(), nullable=True),
        sa.Column("created_at", Instant(), server_default=utc_now(), nullable=False),
        sa.PrimaryKeyConstraint("connection", "external_id", name=op.f("pk_links")),
        sa.UniqueConstraint("contact_id", "connection", name=op.f("uq_links_contact_id_connection")),
    )
    op.create_index(
        "ix_links_contact_deleted",
        "links",
        ["connection", "contact_id"],
        unique=False,
        sqlite_where=sa.text("contact_deleted_at IS NOT NULL"),
        postgresql_where=sa.text("contact_deleted_at IS NOT NULL"),
    )
    op.create_table(
        "rejects",
        sa.Column("id", _RowId, autoincrement=True, nullable=False),
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("contact_id", sa.Text(), nullable=True),
        sa.Column("reasons", Json(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", Instant(), nullable=True),
        sa.Column("record_id", sa.BigInteger(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("first_at", Instant(), nullable=False),
        sa.Column("last_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejects")),
        sa.UniqueConstraint("connection", "source", "key", name=op.f("uq_rejects_connection_source_key")),
    )
    op.create_table(
        "sync_runs",
        sa.Column("id", _RowId, autoincrement=True, nullable=False),
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("started_at", Instant(), nullable=False),
        sa.Column("finished_at", Instant(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("counts", Json(), nullable=True),
        sa.Column("api_calls", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sync_runs")),
    )
    op.create_index("ix_sync_runs_latest", "sync_runs", ["connection", "step", "id"], unique=False)
