"""Watching: the notification channel that a CRM must be asked for, again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy.engine import Engine

from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import ConnectorSetupError
from crm_pipeline.connectors.zoho_watch import LONGEST_LIFE, LONGEST_TOKEN, Channel
from crm_pipeline.store import channels
from crm_pipeline.store.channels import ChannelRow
from crm_pipeline.store.engine import reading, writing


class Watcher(Protocol):
    """A CRM that tells of changes through channels."""

    def watch(self, channel: Channel) -> datetime:
        """Renew the channel, or make it; when it ends."""


@dataclass(frozen=True, slots=True)
class Watch:
    """The one channel of a connection."""

    engine: Engine
    connection: Connection
    tokens: tuple[str, ...]
    """Accepted webhook secrets; the first is the channel's token."""

    def due(self, now: datetime) -> bool:
        """Whether the channel must be made or renewed. No CRM call."""
        with reading(self.engine) as tx:
            kept = channels.load(tx, self.connection.name)
        return is_due(kept, self._asked(), now)

    def renew(self, watcher: Callable[[], Watcher], clock: Callable[[], datetime]) -> datetime:
        """Ask the CRM for the channel, and note when it ends.

        Raises:
            ConnectorError: it is not set up, or the CRM does not take it.
        """
        asked, url, now = self._asked(), str(self.connection.webhook.public_url), clock()
        channel = Channel(channel_id(self.connection.name, url), url, self._token(), now + LONGEST_LIFE)
        ends = watcher().watch(channel)
        with writing(self.engine) as tx:
            channels.save(tx, self.connection.name, ChannelRow(channel.id, asked, now, ends))
        return ends

    def _asked(self) -> str:
        text = f"{self.connection.webhook.public_url} {self._token()}"
        return hashlib.sha256(text.encode()).hexdigest()[:4]  # too short to find the token by

    def _token(self) -> str:
        if not self.tokens or len(self.tokens[0]) > LONGEST_TOKEN:
            raise ConnectorSetupError(
                f"EXTERNAL_CRM_WEBHOOK_SECRET must be set for webhook.public_url, and have up to "
                f"{LONGEST_TOKEN} characters"
            )
        return self.tokens[0]


def is_due(kept: ChannelRow | None, asked: str, now: datetime) -> bool:
    """Whether there is no channel, another is wanted, or half its life is over.

    One renewed in the future was noted by a wrong clock.
    """
    if kept is None or kept.asked != asked or kept.renewed_at > now + timedelta(minutes=1):
        return True
    return now >= kept.renewed_at + (kept.expires_at - kept.renewed_at) / 2


def channel_id(connection: str, url: str) -> str:
    """A number that stays the same, so that no second channel is made where the first was forgotten."""
    digest = hashlib.sha256(f"{connection} {url}".encode()).hexdigest()
    return str(10**14 + int(digest[:12], 16))
