"""Credentials on the wire, and the ones that cannot go there."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from crm_pipeline.connection import Auth
from crm_pipeline.connectors.auth import check_headers, make_auth
from crm_pipeline.connectors.base import ConnectorSetupError, CrmRefusedError, Window
from crm_pipeline_tests.connectors.conftest import KEY, Connect, MakeSession, Serve
from crm_pipeline_tests.connectors.servers import reply, script


@pytest.mark.parametrize(
    "auth,key,header,value",
    [
        ({}, "k3y", "authorization", "Bearer k3y"),
        ({"kind": "header", "header": "X-API-Key"}, "k3y", "x-api-key", "k3y"),
        (
            {"kind": "header", "template": "Zoho-oauthtoken {api_key}"},
            "k3y",
            "authorization",
            "Zoho-oauthtoken k3y",
        ),
        (
            {"kind": "basic", "username": "budi"},
            "kéy",
            "authorization",
            "Basic " + base64.b64encode("budi:kéy".encode()).decode(),
        ),
    ],
)
def test_header_credentials(
    auth: dict[str, Any], key: str, header: str, value: str, serve: Serve, session: MakeSession
) -> None:
    """Each kind puts the key where it says."""
    server = serve(script(reply(200, {})))
    session(server.url, key, auth=auth).send("GET", server.url)
    assert server.seen[0].headers[header] == value


def test_query_credential(serve: Serve, session: MakeSession) -> None:
    """A key in the query is encoded, and replaces one that a link repeats."""
    server = serve(script(reply(200, {})))
    crm = session(server.url, "k&y +", auth={"kind": "query", "param": "token"})
    crm.send("GET", f"{server.url}/x?page=2&token=old", params={"a": "b"})
    assert server.seen[0].query == {"page": "2", "a": "b", "token": "k&y +"}
    assert "authorization" not in server.seen[0].headers


def test_no_credential(serve: Serve, session: MakeSession) -> None:
    """Without authentication a key that happens to be there is not sent."""
    server = serve(script(reply(200, {})))
    session(server.url, "k3y", auth={"kind": "none"}).send("GET", server.url)
    assert "k3y" not in str(server.seen[0])


@pytest.mark.parametrize("kind", ["bearer", "header", "basic", "query"])
@pytest.mark.parametrize("key", ["s3cret\n", "s3c\r\nX: y", " s3cret", "s3c\x00ret"])
def test_unprintable_key_is_a_setup_error(kind: str, key: str) -> None:
    """A key with a line break or a blank at its end is refused by name, without showing it."""
    with pytest.raises(ConnectorSetupError, match="EXTERNAL_CRM_API_KEY") as caught:
        make_auth(Auth.model_validate({"kind": kind}), key)
    assert "s3c" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("key", ["s3cret-ключ", "s3cret€"])
def test_key_that_no_header_carries_is_a_setup_error(key: str) -> None:
    """A key outside Latin-1 cannot be a header; the error does not show it."""
    with pytest.raises(ConnectorSetupError, match="EXTERNAL_CRM_API_KEY") as caught:
        make_auth(Auth(), key)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("key", [None, ""])
def test_missing_key_is_a_setup_error(key: str | None) -> None:
    """A connection that needs a key does not start without one."""
    with pytest.raises(ConnectorSetupError, match="EXTERNAL_CRM_API_KEY is not set"):
        make_auth(Auth(), key)


def test_wrong_auth_section_is_a_setup_error() -> None:
    """Names that HTTP does not allow are told by their place in the file."""
    with pytest.raises(ConnectorSetupError, match="auth"):
        make_auth(Auth(kind="basic", username="bu:di"), "k3y")


@pytest.mark.parametrize("headers", [{"X-Key": "s3cret\n"}, {"X-Key": "s3cret€"}])
def test_wrong_headers_are_a_setup_error(headers: dict[str, str]) -> None:
    """Headers of the connection file that cannot be sent are told without their value."""
    with pytest.raises(ConnectorSetupError, match="headers") as caught:
        check_headers(headers)
    assert "s3cret" not in str(caught.value)


def test_connection_headers_are_sent(serve: Serve, session: MakeSession) -> None:
    """Fixed headers go with every request."""
    server = serve(script(reply(200, {})))
    crm = session(server.url, headers={"X-Tenant": "42", "Accept": "application/vnd.api+json"})
    crm.send("GET", server.url)
    assert server.seen[0].headers["x-tenant"] == "42"
    assert server.seen[0].headers["accept"] == "application/vnd.api+json"


@pytest.mark.parametrize("told", [KEY, f"bad_key.{KEY}", KEY.upper()])
@pytest.mark.parametrize("place", ["error", "code", "errorCode"])
@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize(
    "auth",
    [
        {},
        {"kind": "header", "header": "X-API-Key"},
        {"kind": "query", "param": "key"},
        {"kind": "basic", "username": "budi"},
    ],
)
def test_a_key_that_the_crm_repeats_is_not_told(
    auth: dict[str, Any], status: int, place: str, told: str, serve: Serve, connector: Connect
) -> None:
    """It looks like a code, and stands where codes stand."""
    server = serve(script(reply(status, {place: told, "category": "MISSING_SCOPES"})))
    with pytest.raises(CrmRefusedError) as refused:
        list(connector(server.url, auth=auth).pages(Window(None, None)))
    assert KEY.casefold() not in str(refused.value).casefold()
    assert str(status) in str(refused.value)


def test_codes_that_repeat_nothing_are_told(serve: Serve, connector: Connect) -> None:
    """They say what to do."""
    server = serve(script(reply(403, {"category": "MISSING_SCOPES"})))
    with pytest.raises(CrmRefusedError, match="403: MISSING_SCOPES"):
        list(connector(server.url).pages(Window(None, None)))
