"""Zoho's notification channel: made, renewed when half its life is over, made anew when it was lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy.engine import Engine

from crm_pipeline import ExternalCrmService, instants
from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import ConnectorError, ConnectorSetupError, CrmAnswerError, CrmRefusedError
from crm_pipeline.connectors.zoho import ZohoConnector
from crm_pipeline.connectors.zoho_watch import LONGEST_LIFE, Channel
from crm_pipeline.store.channels import ChannelRow
from crm_pipeline.sync.errors import DisabledError
from crm_pipeline.sync.watch import Watch, channel_id, is_due
from crm_pipeline_tests.connectors.servers import reply, script, serving
from crm_pipeline_tests.connectors.vendors import Account, account, preset
from crm_pipeline_tests.orchestration.fakes import settings

URL = "https://hooks.example.com/api/external/webhook"
NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ZONELESS = {"channel_expiry": "2026-03-04T12:00:00"}
DAY_LONG = ChannelRow("900000001", "ab12", NOON, NOON + 22 * HOUR)


@pytest.mark.parametrize(
    "kept, now, due",
    [
        (None, NOON, True),
        (DAY_LONG, NOON, False),
        (DAY_LONG, NOON + 10 * HOUR, False),
        (DAY_LONG, NOON + 11 * HOUR, True),
        (DAY_LONG, NOON + 99 * HOUR, True),
        (DAY_LONG, NOON - HOUR, True),
        (ChannelRow("900000001", "other", NOON, NOON + HOUR), NOON, True),
    ],
    ids=["none", "new", "young", "half-way", "lapsed", "wrong-clock", "other-address-or-token"],
)
def test_when_a_channel_is_due(kept: ChannelRow | None, now: datetime, *, due: bool) -> None:
    """Half its life is left for a renewal that fails at first."""
    assert is_due(kept, "ab12", now) is due


def test_a_channel_has_the_same_number_everywhere() -> None:
    """Another process, or a new database, renews it in place of making a second one."""
    assert channel_id("default", URL) == channel_id("default", URL)
    assert len({channel_id("default", URL), channel_id("other", URL), channel_id("default", URL + "2")}) == 3


def connection(url: str) -> Connection:
    """A Zoho account whose notifications come to us."""
    return preset("zoho", url, webhook={"public_url": URL})


def zoho(made: Account) -> ZohoConnector:
    """The account's connector."""
    assert isinstance(made.connector, ZohoConnector)
    return made.connector


def channels(made: Account) -> list[dict[str, Any]]:
    """What Zoho has."""
    answer = zoho(made)._session.send("GET", f"{made.url}/crm/v8/actions/watch")  # noqa: SLF001
    return list(orjson.loads(answer.body)["watch"]) if answer.body else []


def test_a_channel_is_made_and_renewed(engine: Engine) -> None:
    """One channel for the three events, with the secret as token; a changed secret renews it."""
    with account("zoho") as made:
        watch = Watch(engine, connection(made.url), ("a-long-secret",))
        assert watch.due(instants.now())
        ends = watch.renew(lambda: zoho(made), instants.now)
        assert abs(ends - instants.now() - LONGEST_LIFE) < timedelta(minutes=1)
        (first,) = channels(made)
        assert first["events"] == ["Contacts.create", "Contacts.edit", "Contacts.delete"]
        assert (first["notify_url"], first["token"]) == (URL, "a-long-secret")
        assert not watch.due(instants.now())
        assert watch.due(instants.now() + LONGEST_LIFE / 2)

        changed = Watch(engine, connection(made.url), ("another-secret", "a-long-secret"))
        assert changed.due(instants.now())
        changed.renew(lambda: zoho(made), instants.now)
        (second,) = channels(made)
        assert (second["channel_id"], second["token"]) == (first["channel_id"], "another-secret")


def test_no_secret_is_kept(engine: Engine) -> None:
    """The database tells that the token changed, and not what it is."""
    with account("zoho") as made:
        Watch(engine, connection(made.url), ("a-long-secret",)).renew(lambda: zoho(made), instants.now)
    with engine.connect() as tx:
        kept = str(tx.exec_driver_sql("SELECT * FROM channels").fetchall())
    assert "secret" not in kept


def test_more_than_a_day_is_granted_an_hour() -> None:
    """What counts is what Zoho answers."""
    with account("zoho") as made:
        wanted = Channel("900000001", URL, "token", instants.now() + timedelta(days=3))
        ends = zoho(made).watch(wanted)
        assert timedelta(minutes=59) < ends - instants.now() <= HOUR


@pytest.mark.parametrize("secrets", [(), ("x" * 51,)], ids=["none", "too-long"])
def test_a_token_is_needed(engine: Engine, secrets: tuple[str, ...]) -> None:
    """Without one nobody could tell whose notifications they are."""
    with pytest.raises(ConnectorSetupError, match="up to 50 characters"):
        Watch(engine, connection("https://www.zohoapis.com"), secrets).due(NOON)


def test_what_zoho_refuses_is_told() -> None:
    """By its code, without the token."""
    with account("zoho") as made, pytest.raises(CrmRefusedError, match="INVALID_DATA") as told:
        zoho(made).watch(Channel("900000001", "ftp://hooks.example.com", "token-1", NOON + 9999 * HOUR))
    assert "token-1" not in str(told.value)


@pytest.mark.parametrize(
    "status, body, error",
    [
        (200, {"watch": [{"status": "success"}]}, CrmAnswerError),
        (200, {"watch": [{"status": "success", "details": {"events": [ZONELESS]}}]}, CrmAnswerError),
        (200, {}, CrmRefusedError),
        (400, {"code": "INVALID_DATA"}, CrmRefusedError),
        (403, {"code": "OAUTH_SCOPE_MISMATCH"}, CrmRefusedError),
        (500, {}, ConnectorError),
    ],
)
def test_no_channel_without_a_good_answer(status: int, body: dict[str, Any], error: type[Exception]) -> None:
    """An answer that does not say when it ends is no channel."""
    with serving(script(*[reply(status, body)] * 12)) as server, account("zoho") as made:
        made.connector.close()
        with pytest.raises(error):
            _connector(server.url).watch(Channel("900000001", URL, "token", NOON + HOUR))


def _connector(url: str) -> ZohoConnector:
    from crm_pipeline.connectors import connect  # noqa: PLC0415

    made = connect(preset("zoho", url), "key", sleep=lambda _: None)
    assert isinstance(made, ZohoConnector)
    return made


def test_the_service_keeps_it(engine: Engine, tmp_path: Any) -> None:
    """The settings say where to and with which token."""
    with account("zoho") as made:
        file = tmp_path / "zoho.yaml"
        file.write_text(f"type: zoho\nbase_url: {made.url}\nwebhook:\n  public_url: {URL}\n")
        variables = {"external_crm_api_url": made.url, "external_crm_api_key": "sim-key"}
        own = settings(**variables, external_crm_config=file, external_crm_webhook_secret="a-long-secret")
        with ExternalCrmService(engine, settings=own) as service:
            assert service.watch_due(instants.now())
            assert service.renew_watch() > instants.now()
            assert not service.watch_due(instants.now())
        off = own.model_copy(update={"external_crm_enabled": False})
        with ExternalCrmService(engine, settings=off) as service, pytest.raises(DisabledError):
            service.renew_watch()
        assert len(channels(made)) == 1
