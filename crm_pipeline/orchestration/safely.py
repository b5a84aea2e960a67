"""Errors on their way into Dagster, which stores them and shows them to anybody."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from crm_pipeline.connectors.base import ConnectorError
from crm_pipeline.settings import SettingsError
from crm_pipeline.sync.errors import SyncError

_FRAMES = 8


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
    except (SyncError, ConnectorError, SettingsError) as error:
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from None
    except Exception as error:  # noqa: BLE001 - nothing is swallowed, it fails under another text
        raise dg.Failure(_place_of(error), allow_retries=False) from None


def _place_of(error: BaseException) -> str:
    """The error's type and its innermost lines of code, without a word of its message."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    lines = [f"  {Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames]
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    return "\n".join([f"{kind} (its message may hold personal data and is not kept here), raised at", *lines])
