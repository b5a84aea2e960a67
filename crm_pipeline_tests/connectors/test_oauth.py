"""OAuth2 for any CRM: what is asked, what an answer may be, and where a token may go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr

from crm_pipeline.connection import OAuth
from crm_pipeline.connectors.base import ConnectorError, CrmRefusedError, Window
from crm_pipeline.connectors.oauth import MemoryShelf, Tokens
from crm_pipeline.connectors.repeats import NotSentError
from crm_pipeline.connectors.session import Answer
from crm_pipeline_tests.connectors.conftest import Connect, Serve
from crm_pipeline_tests.connectors.servers import CUT, Server, reply, script
from crm_pipeline_tests.connectors.writes import FAILED, WRITTEN, create, statuses

EMPTY = reply(200, {"records": []})


def oauth(server: Server, **changes: Any) -> dict[str, Any]:
    """Client credentials at ``/token``."""
    grant = {"grant": "client_credentials", "client_id": "app", "client_secret": "s3cret"}
    return {"kind": "oauth2", "oauth": {**grant, "token_url": f"{server.url}/token", **changes}}


def token(**told: Any) -> bytes:
    """An answer with a token."""
    return reply(200, {"access_token": "tok-1", "token_type": "Bearer", **told})


@pytest.mark.parametrize("how", ["body", "basic"])
def test_a_token_is_asked_for_once_and_used(how: str, serve: Serve, connector: Connect) -> None:
    """The client shows its secret as the file says; the token serves every request until it ends."""
    server = serve(script(token(expires_in=3600), EMPTY))
    made = connector(server.url, auth=oauth(server, client_auth=how, scope="contacts"))
    for _ in range(2):
        list(made.pages(Window()))
    assert [each.path for each in server.seen] == ["/token", "/", "/"]
    form = parse_qs(server.seen[0].body.decode())
    assert (form["grant_type"], form["scope"]) == (["client_credentials"], ["contacts"])
    assert ("client_secret" in form, "authorization" in server.seen[0].headers) == (
        how == "body",
        how == "basic",
    )
    assert server.seen[1].headers["authorization"] == "Bearer tok-1"


def test_a_token_near_its_end_is_renewed_before() -> None:
    """No request goes out with a token that ends on its way; a changed refresh token is used next."""
    asked: list[dict[str, list[str]]] = []
    moment = datetime(2026, 1, 5, tzinfo=UTC)

    def ask(_url: str, form: bytes, _headers: Mapping[str, str]) -> Answer:
        asked.append(parse_qs(form.decode()))
        told = {"access_token": f"tok-{len(asked)}", "expires_in": 1800, "refresh_token": f"r-{len(asked)}"}
        return Answer(200, {}, json.dumps(told).encode(), "")

    grant = OAuth(grant="refresh_token", client_id="app", refresh_token=SecretStr("r-0"))
    tokens = Tokens(grant, "Bearer", "https://crm.example/token", ask, MemoryShelf(), lambda: moment)
    assert tokens.current() == tokens.current()
    moment += timedelta(seconds=1739)
    assert tokens.current().value == "tok-1"
    moment += timedelta(seconds=2)
    assert tokens.current().value == "tok-2"
    assert [form["refresh_token"] for form in asked] == [["r-0"], ["r-1"]]


def test_one_refresh_for_one_refusal(serve: Serve, connector: Connect) -> None:
    """A 401 that a new token does not heal is about something else."""
    server = serve(script(token(), reply(401), token(), reply(401)))
    made = connector(server.url, auth=oauth(server))
    with pytest.raises(CrmRefusedError, match="401"):
        list(made.pages(Window()))
    assert [each.path for each in server.seen] == ["/token", "/", "/token", "/"]


@pytest.mark.parametrize(
    "answer",
    [
        reply(400, {"error": "invalid_grant", "error_description": "tok s3cret"}),
        reply(200, {"error": "invalid_code"}),
        reply(200, b"<html>"),
        reply(200, {"access_token": "with\nbreak"}),
        token(instance_url="http://crm.example"),
        token(instance_url="https://user:pass@crm.example"),
        token(api_domain="file:///etc"),
    ],
)
def test_a_bad_answer_is_no_token(answer: bytes, serve: Serve, connector: Connect) -> None:
    """It is told without what was sent, and nothing goes to the CRM."""
    server = serve(script(answer))
    made = connector(server.url, auth=oauth(server))
    with pytest.raises(ConnectorError) as told:
        list(made.pages(Window()))
    assert "s3cret" not in str(told.value)
    assert {each.path for each in server.seen} == {"/token"}


def test_a_write_without_a_token_was_not_sent(serve: Serve, connector: Connect) -> None:
    """The token address hangs up: nobody needs to look whether the record was made."""
    server = serve(script(CUT))
    made = connector(server.url, auth=oauth(server))
    with pytest.raises(NotSentError):
        list(made.pages(Window()))
    with pytest.raises(NotSentError):
        made.write([create()])


def test_a_token_that_cannot_be_renewed_stops_writes_in_order(serve: Serve, connector: Connect) -> None:
    """What was written before stays written; the rest has failed and was not sent."""
    server = serve(
        script(token(), reply(201, {"id": "1"}), reply(401), reply(400, {"error": "invalid_grant"}))
    )
    made = connector(server.url, auth=oauth(server))
    assert statuses(made.write([create("a"), create("b"), create("c")])) == [WRITTEN, FAILED, FAILED]
    assert [each.path for each in server.seen] == ["/token", "/", "/", "/token"]


ODD_TOKENS: list[Any] = [
    None,
    [],
    "x",
    {},
    {"access_token": None},
    {"access_token": ["x"]},
    {"access_token": ""},
    {"access_token": "two\nlines"},
    {"access_token": "é"},
    {"access_token": "t", "instance_url": "http://elsewhere.example"},
    {"access_token": "t", "api_domain": "https://user:pw@elsewhere.example"},
    {"access_token": "t", "instance_url": "file:///etc/passwd"},
    {"error": "invalid_grant", "error_description": "refresh s3cret is not valid"},
    {"error": "s3cret"},
    {"error": "unknown.s3cret", "status": "s3cret"},
]


@pytest.mark.parametrize("told", ODD_TOKENS)
def test_an_odd_token_is_refused_without_a_secret(told: Any, serve: Serve, connector: Connect) -> None:
    """Nothing is sent to the CRM, and nothing is quoted."""
    server = serve(lambda _seen: reply(200, told))
    made = connector(server.url, auth=oauth(server), limits={"retries": 0})
    with pytest.raises(ConnectorError) as refused:
        list(made.pages(Window()))
    assert "s3cret" not in str(refused.value)
    assert [seen.path for seen in server.seen] == ["/token"]


@pytest.mark.parametrize("life", [0, -1, "soon", None, "inf", "nan", True, "3600", [], 10**30])
def test_an_odd_life_is_no_reason_for_a_new_token_each_time(
    life: Any, serve: Serve, connector: Connect
) -> None:
    """What says nothing sensible lasts until the CRM refuses it."""
    server = serve(lambda seen: token(expires_in=life) if seen.path == "/token" else EMPTY)
    made = connector(server.url, auth=oauth(server))
    for _ in range(3):
        list(made.pages(Window()))
    assert [seen.path for seen in server.seen] == ["/token", "/", "/", "/"]


def test_a_token_moves_no_crm_known_from_a_file(serve: Serve, connector: Connect) -> None:
    """Its address and path are the connection's, whatever a token's answer holds beside the token."""
    server = serve(
        lambda seen: token(api_domain="https://elsewhere.example") if seen.path == "/token" else EMPTY
    )
    list(connector(f"{server.url}/api/v1", auth=oauth(server)).pages(Window()))
    assert [seen.path for seen in server.seen] == ["/token", "/api/v1"]
