"""Access tokens: one refresh for all workers, and nothing readable at rest."""

from __future__ import annotations

import base64
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from crm_pipeline import instants
from crm_pipeline.connection import OAuth
from crm_pipeline.connectors import connect
from crm_pipeline.connectors.base import Window
from crm_pipeline.connectors.oauth import Token
from crm_pipeline.store.engine import reading
from crm_pipeline.sync.tokens import StoredTokens
from crm_pipeline_tests.connectors.vendors import account, preset

KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
OAUTH = {
    "grant": "refresh_token",
    "client_id": "sim-client",
    "client_secret": "sim-secret",
    "refresh_token": "sim-refresh",
}


def stored(engine: Engine, key: str = KEY, **oauth: str) -> StoredTokens:
    """The shelf of one process."""
    return StoredTokens(engine, "default", OAuth.model_validate({**OAUTH, **oauth}), key)


def test_ten_workers_make_one_refresh(engine: Engine) -> None:
    """All meet the end of the token at once: one asks for a new one, nobody is turned away."""
    with account("hubspot", 350) as made:
        connection = preset("hubspot", made.url, auth={"kind": "oauth2", "oauth": OAUTH})
        workers = [connect(connection, None, tokens=stored(engine)) for _ in range(10)]
        readers = [worker.pages(Window()) for worker in workers]
        with ThreadPoolExecutor(10) as pool:
            assert sum(len(page.records) for page in pool.map(next, readers)) == 1_000
            assert made.crm.tokens.issued == 1
            made.crm.tokens.end_all()
            rest = pool.map(lambda reader: sum(len(page.records) for page in reader), readers)
            assert Counter(rest) == {250: 10}
        assert made.crm.tokens.issued == 2
        for worker in workers:
            worker.close()


def test_nothing_readable_is_kept(engine: Engine) -> None:
    """The database holds the token sealed; without the key, or for other credentials, it is none."""
    token = Token(
        "very-secret-token", instants.now() + timedelta(hours=1), "https://crm.example", "refresh-2"
    )
    stored(engine).save(token)
    with reading(engine) as tx:
        row = tx.execute(sa.text("SELECT * FROM tokens")).one()
    assert "secret" not in repr(row)
    assert "refresh-2" not in repr(row)
    assert stored(engine).load() == token
    assert stored(engine, base64.urlsafe_b64encode(bytes(32)).decode()).load() is None
    assert stored(engine, refresh_token="another").load() is None


def test_secrets_of_a_token_are_not_shown() -> None:
    """A token in a log or a traceback says nothing."""
    assert "very-secret" not in repr(Token("very-secret", None, refresh_token="very-secret"))
    assert "very-secret" not in repr(OAuth.model_validate({**OAUTH, "client_secret": "very-secret"}))


def test_a_refresher_that_does_not_end_is_not_waited_for_for_ever(engine: Engine) -> None:
    """A place that somebody holds is waited for, within bounds."""
    first, oauth = stored(engine), OAuth.model_validate(OAUTH)
    second = StoredTokens(engine, "default", oauth, KEY, sleep=lambda _seconds: None)
    with first.alone(), pytest.raises(Exception, match="another process is getting one"), second.alone():
        pass
