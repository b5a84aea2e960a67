"""Connectors: each speaks one CRM's dialect; ``connect`` makes the one a connection asks for."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from crm_pipeline import instants
from crm_pipeline.connection import Connection, ConnectorType
from crm_pipeline.connectors.base import Connector, ConnectorSetupError

if TYPE_CHECKING:
    from crm_pipeline.connectors.session import Exchange


def connect(
    connection: Connection,
    api_key: str | None,
    *,
    clock: Callable[[], datetime] = instants.now,
    sleep: Callable[[float], None] = time.sleep,
    observe: Callable[[Exchange], None] | None = None,
) -> Connector:
    """Make the connector of a connection. Nothing is sent before its first use.

    Args:
        connection: the CRM account.
        api_key: the static credential, None where there is none.
        clock: the time now, aware.
        sleep: waits so many seconds before a repeat.
        observe: told of every request sent: method, status, seconds.

    Raises:
        ConnectorSetupError: the connection, or the key, cannot work as it is.
    """
    if connection.type is not ConnectorType.GENERIC:
        raise ConnectorSetupError(
            f"EXTERNAL_CRM_TYPE {connection.type} is not available yet; generic speaks to any REST CRM"
        )
    # requests takes 0.1 s and more to import: only what really talks to a CRM pays for it.
    from crm_pipeline.connectors.rest import RestConnector  # noqa: PLC0415
    from crm_pipeline.connectors.session import Session  # noqa: PLC0415

    session = Session(connection, api_key, clock=clock, sleep=sleep, observe=observe)
    return RestConnector(connection, session, clock)
