"""The JWT bearer grant: what is signed is what the CRM can verify."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from crm_pipeline.connectors import connect
from crm_pipeline.connectors.base import ConnectorSetupError, Window
from crm_pipeline_tests.connectors.servers import reply, script, serving
from crm_pipeline_tests.connectors.vendors import preset


def decoded(part: str) -> bytes:
    """A part of a token."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def auth(key: str, url: str) -> dict[str, Any]:
    """The grant, for a user."""
    oauth = {
        "grant": "jwt_bearer",
        "client_id": "app",
        "username": "sync@example.org",
        "private_key": key,
        "token_url": url,
        "audience": "https://login.salesforce.com",
    }
    return {"kind": "oauth2", "oauth": oauth}


def test_the_assertion_is_signed_for_the_user() -> None:
    """RS256 over issuer, user, audience and an end within three minutes."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    token = reply(200, {"access_token": "token!1", "token_type": "Bearer"})
    with serving(script(token, reply(200, {"done": True, "records": []}))) as server:
        made = connect(preset("salesforce", server.url, auth=auth(pem, f"{server.url}/token")), None)
        assert next(made.pages(Window())).records == ()
        made.close()
    form = parse_qs(server.seen[0].body.decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    head, claims, signature = form["assertion"][0].split(".")
    key.public_key().verify(
        decoded(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
    )
    told = json.loads(decoded(claims))
    assert told | {"exp": 0} == {
        "iss": "app",
        "sub": "sync@example.org",
        "aud": "https://login.salesforce.com",
        "exp": 0,
    }
    assert server.seen[1].headers["authorization"] == "Bearer token!1"


def test_a_key_that_is_none_is_told() -> None:
    """The setting is named; the key is not."""
    with serving(script(reply(200, {}))) as server:
        made = connect(preset("salesforce", server.url, auth=auth("no-key", f"{server.url}/token")), None)
        with pytest.raises(ConnectorSetupError, match=r"auth\.oauth\.private_key") as told:
            list(made.pages(Window()))
        assert "no-key" not in str(told.value)
        assert server.seen == []
