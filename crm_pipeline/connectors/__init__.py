"""Connectors: each speaks one CRM's dialect; ``connect`` makes the one a connection asks for."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from crm_pipeline import instants
from crm_pipeline.connection import Connection, ConnectorType
from crm_pipeline.connectors.base import Connector

if TYPE_CHECKING:
    from typing import TypeAlias

    from crm_pipeline.connectors.budget import Budget
    from crm_pipeline.connectors.oauth import TokenShelf
    from crm_pipeline.connectors.session import Dialect, Exchange

    Speaker: TypeAlias = tuple[Callable[[Connection, Any, Callable[[], datetime]], Connector], Dialect | None]


def connect(
    connection: Connection,
    api_key: str | None,
    *,
    clock: Callable[[], datetime] = instants.now,
    sleep: Callable[[float], None] = time.sleep,
    observe: Callable[[Exchange], None] | None = None,
    tokens: TokenShelf | None = None,
    budget: Budget | None = None,
) -> Connector:
    """Make the connector of a connection. Nothing is sent before its first use.

    Args:
        connection: the CRM account.
        api_key: the static credential, None where there is none.
        clock: the time now, aware.
        sleep: waits so many seconds before a repeat.
        observe: told of every request sent: method, status, seconds.
        tokens: where the account's access tokens are kept; in memory when not given.
        budget: what the account may be asked; no bounds when not given.

    Raises:
        ConnectorSetupError: the connection, or the key, cannot work as it is.
    """
    # requests takes 0.1 s and more to import: only what really talks to a CRM pays for it.
    from crm_pipeline.connectors.session import PLAIN, Session, Shared  # noqa: PLC0415

    made, dialect = _SPEAKERS[connection.type]()
    session = Session(
        connection,
        api_key,
        clock=clock,
        sleep=sleep,
        observe=observe,
        dialect=dialect or PLAIN,
        shared=Shared(tokens, budget),
    )
    return made(connection, session, clock)


def _generic() -> Speaker:
    from crm_pipeline.connectors.rest import RestConnector  # noqa: PLC0415

    return RestConnector, None


def _hubspot() -> Speaker:
    from crm_pipeline.connectors.hubspot import DIALECT, HubSpotConnector  # noqa: PLC0415

    return HubSpotConnector, DIALECT


def _salesforce() -> Speaker:
    from crm_pipeline.connectors.salesforce import DIALECT, SalesforceConnector  # noqa: PLC0415

    return SalesforceConnector, DIALECT


def _zoho() -> Speaker:
    from crm_pipeline.connectors.zoho import DIALECT, ZohoConnector  # noqa: PLC0415

    return ZohoConnector, DIALECT


_SPEAKERS: dict[ConnectorType, Callable[[], Speaker]] = {
    ConnectorType.GENERIC: _generic,
    ConnectorType.HUBSPOT: _hubspot,
    ConnectorType.SALESFORCE: _salesforce,
    ConnectorType.ZOHO: _zoho,
}
