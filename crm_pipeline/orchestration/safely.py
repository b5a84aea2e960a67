"""Errors on their way into Dagster, which stores them and shows them to anybody."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from sqlalchemy.exc import OperationalError

import crm_pipeline
from crm_pipeline.connectors.base import ConnectorError
from crm_pipeline.settings import SettingsError
from crm_pipeline.sync.errors import SyncError

_OURS = Path(crm_pipeline.__file__).parent
_WITHHELD = "its message may hold personal data and is not kept here"


@contextmanager
def told_safely() -> Iterator[None]:
    """Pass on the texts of our own errors, which are made for it; of any other only where it arose.

    A driver's message may quote a whole contact, a socket's message the URL with its query. The
    web interface has no login, so neither may reach an event.

    Raises:
        dagster.Failure: whatever went wrong inside, without its cause.
    """
    try:
        yield
    except dg.Failure:
        raise
    except Exception as error:  # noqa: BLE001 - nothing is swallowed, it fails under another text
        raise dg.Failure(_told(error), allow_retries=False) from None


def _told(error: Exception) -> str:
    if isinstance(error, SyncError | ConnectorError | SettingsError):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, OperationalError):  # names a host, a file or a column, never a row's values
        return f"Database: {str(error.orig).splitlines()[0]}\n{_place_of(error)}"
    return f"{type(error).__module__}.{type(error).__qualname__} ({_WITHHELD})\n{_place_of(error)}"


def _place_of(error: Exception) -> str:
    """Our own lines of code that led to an error, and the one that raised it."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is told_safely's own
    ours = [frame for frame in frames[:-1] if _OURS in Path(frame.filename).parents]
    return "\n".join(f"  {Path(at.filename).name}:{at.lineno} in {at.name}" for at in [*ours, *frames[-1:]])
