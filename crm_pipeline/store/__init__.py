"""The database: tables, queries by subject, migrations."""
