"""Access tokens that an account's processes share, sealed at rest; one of them asks for new ones."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import orjson
from sqlalchemy.engine import Engine

from crm_pipeline import instants
from crm_pipeline.connection import OAuth
from crm_pipeline.connectors.oauth import Token
from crm_pipeline.connectors.repeats import NotSentError
from crm_pipeline.store import leases, tokens
from crm_pipeline.store.engine import reading, writing

PATIENCE = 60.0
"""Seconds to wait for another process to get a token."""
_PAUSE = 0.1


class StoredTokens:
    """Keeps a connection's token in the database."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        oauth: OAuth,
        key: str,
        *,
        clock: Callable[[], datetime] = instants.now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``key`` is a Fernet key. A token that other credentials got is not taken."""
        from cryptography.fernet import Fernet  # noqa: PLC0415 - heavy, and seldom needed

        self._engine, self._name, self._clock, self._sleep = engine, name, clock, sleep
        self._fernet = Fernet(key)
        secrets = (oauth.client_secret, oauth.refresh_token, oauth.private_key)
        shown = [each.get_secret_value() if each is not None else "" for each in secrets]
        said = "\x00".join(
            [oauth.grant, oauth.client_id, oauth.username or "", oauth.token_url or "", *shown]
        )
        self._owner = hashlib.sha256(said.encode()).hexdigest()

    def load(self) -> Token | None:
        """The newest token; None where there is none, or it is not to be read with this key."""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - as above

        with reading(self._engine) as tx:
            sealed = tokens.load(tx, self._name)
        if sealed is None:
            return None
        try:
            found = orjson.loads(self._fernet.decrypt(sealed.encode()))
        except InvalidToken:
            return None  # sealed with another key: a new token takes its place
        if found["owner"] != self._owner:
            return None
        expires_at = found["expires_at"]
        return Token(
            found["value"],
            None if expires_at is None else datetime.fromisoformat(expires_at),
            found["base"],
            found["refresh_token"],
        )

    def save(self, token: Token) -> None:
        """Keep a token in place of the one before."""
        content = orjson.dumps(
            {
                "owner": self._owner,
                "value": token.value,
                "expires_at": token.expires_at.isoformat() if token.expires_at else None,
                "base": token.base,
                "refresh_token": token.refresh_token,
            }
        )
        with writing(self._engine) as tx:
            tokens.save(tx, self._name, self._fernet.encrypt(content).decode())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let one process of all ask for a new token.

        Raises:
            NotSentError: another one holds the place for too long.
        """
        name, holder = f"{self._name}/token", leases.new_holder()
        patience = PATIENCE
        while not self._taken(name, holder):
            patience -= _PAUSE
            if patience <= 0:
                raise NotSentError("no access token: another process is getting one, and does not end")
            self._sleep(_PAUSE)
        try:
            yield
        finally:
            with writing(self._engine) as tx:
                leases.release(tx, name, holder)

    def _taken(self, name: str, holder: str) -> bool:
        with writing(self._engine) as tx:
            return leases.take(tx, name, holder, self._clock())
