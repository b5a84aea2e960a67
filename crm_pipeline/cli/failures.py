"""Failures in words: one clear line for what can be expected, without secrets or personal data."""

from __future__ import annotations

from crm_pipeline.cli.options import CommandError


def explain(error: Exception) -> str:
    """Say what went wrong, for standard error."""
    from crm_pipeline.settings import SettingsError

    if isinstance(error, SettingsError):
        return "\n".join(f"Settings: {problem}" for problem in error.problems)
    if isinstance(error, CommandError):
        return str(error)
    return _sync_failure(error) or _database_failure(error) or _unexpected(error)


def _sync_failure(error: Exception) -> str:
    from crm_pipeline.connectors.base import ConnectorError
    from crm_pipeline.sync.errors import BusyError, SyncError

    if isinstance(error, BusyError):
        return f"Busy: {error}"
    if isinstance(error, ConnectorError):
        return f"CRM: {error}"
    return f"Failed: {error}" if isinstance(error, SyncError) else ""


def _database_failure(error: Exception) -> str:
    from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

    if isinstance(error, OperationalError):  # names host and file, never a row's values
        return f"Database: {str(error.orig).splitlines()[0]} (see DATABASE_URL)"
    if isinstance(error, DBAPIError):
        return f"Database: {type(error.orig).__name__}{_MORE}"
    return f"Database: {type(error).__name__}{_MORE}" if isinstance(error, SQLAlchemyError) else ""


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"Failed: {error.strerror}{f' ({error.filename})' if error.filename else ''}"
    return f"Unexpected {type(error).__name__}{_MORE}"


_MORE = "; run the same with --debug to see more (its output may hold personal data)"
