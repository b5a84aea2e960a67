"""Alembic's entry: runs revisions inside the transaction ``migrate.upgrade`` opened."""

from __future__ import annotations

from alembic import context

from crm_pipeline.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=context.config.attributes["version_table"],
    transactional_ddl=False,
)
context.run_migrations()
