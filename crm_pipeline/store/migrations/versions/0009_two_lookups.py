"""Contacts in odd spellings, and events about a record, are found without a look at all others.

Revision: 0009
Follows: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ODDLY_SPELLED = (
    "row_version <> pushed_version AND (id NOT LIKE '%@c.us' AND id NOT LIKE '%@lid' OR id LIKE '0%'"
    " OR id LIKE '+%' OR id LIKE '(%' OR id LIKE '% %' OR id LIKE '%-%' OR id LIKE '%:%')"
)


def upgrade() -> None:
    """Add the indexes."""
    op.create_index(
        "ix_contacts_oddly_spelled",
        "contacts",
        ["id"],
        unique=False,
        sqlite_where=sa.text(_ODDLY_SPELLED),
        postgresql_where=sa.text(_ODDLY_SPELLED),
    )
    op.create_index(
        "ix_webhook_events_record",
        "webhook_events",
        ["connection", "external_id", "id"],
        unique=False,
        sqlite_where=sa.text("external_id IS NOT NULL"),
        postgresql_where=sa.text("external_id IS NOT NULL"),
    )
