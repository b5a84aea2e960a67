"""Signatures over raw bytes: published vectors, and everything that is nearly right."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook

from crm_pipeline.api.signatures import Message, Proof, SecretFormError, verifier
from crm_pipeline.connection import Signature

# Published by Standard Webhooks.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIME = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
OTHER_SECRET = "whsec_" + base64.b64encode(b"x" * 24).decode()
# Published by HubSpot.
CLIENT_SECRET = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy"
CLIENT_BODY = b"{'example_field':'example_value'}"
CLIENT_URL = "https://www.example.com/webhook_uri"


def message(
    headers: Mapping[str, Any], body: bytes = BODY, url: str = CLIENT_URL, method: str = "POST"
) -> Message:
    """A request with these headers."""
    raw = [(name.lower().encode(), str(value).encode("latin-1")) for name, value in headers.items()]
    return Message(method, url, raw, body)


def standard(**changes: Any) -> Mapping[str, Any]:
    """The published headers, with changes; None leaves one out."""
    headers = {"webhook-id": ID, "webhook-timestamp": TIME, "webhook-signature": SIGNATURE}
    headers |= {f"webhook-{name}": value for name, value in changes.items()}
    return {name: value for name, value in headers.items() if value is not None}


def judge(
    headers: Mapping[str, Any], *, secrets: tuple[str, ...] = (SECRET,), now: float = TIME
) -> Proof | None:
    """Verify the published body."""
    return verifier(Signature(scheme="standard"), secrets)(message(headers), now)


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_")])
def test_the_published_vector_of_standard_webhooks(secret: str) -> None:
    """It is accepted, with and without the secret's prefix, and its id is proved."""
    assert judge(standard(), secrets=(secret,)) == Proof(ID)


@pytest.mark.parametrize(
    "changes",
    [
        {"signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA="},  # the published bad one
        {"signature": "v2," + SIGNATURE.removeprefix("v1,")},
        {"signature": "v1a," + SIGNATURE.removeprefix("v1,")},
        {"signature": SIGNATURE.removeprefix("v1,")},
        {"signature": SIGNATURE.rstrip("=")},
        {"signature": SIGNATURE.replace("v1,", "v1, ")},
        *(
            {"signature": text}
            for text in ("", " ", "v1", "v1,", "v1,a,b", "v1,====", "v1,!!!!", ",", "é,é", "\xff")
        ),
        {"id": "msg_another"},
        {"id": ""},
        *(
            {"timestamp": text}
            for text in ("", "soon", "-1", "1e9", f"{TIME}.0", f"+{TIME}", "9" * 400, "\xb2")
        ),
        *({name: None} for name in ("id", "timestamp", "signature")),
    ],
)
def test_what_is_nearly_standard_is_refused(changes: Mapping[str, Any]) -> None:
    """Another digest, another version, no digest at all, another id or time: refused, without a failure."""
    assert judge(standard(**changes)) is None


@pytest.mark.parametrize("ahead, fits", [(-301, False), (-300, True), (0, True), (300, True), (301, False)])
def test_a_time_must_be_near(ahead: int, *, fits: bool) -> None:
    """Five minutes before or after, and not a second more."""
    assert (judge(standard(), now=TIME - ahead) is not None) is fits


def test_one_right_signature_of_several_is_enough() -> None:
    """A sender that changes its secret signs with both; other versions are passed over."""
    listed = f"v1a,xyz v1,{base64.b64encode(b'x' * 32).decode()} {SIGNATURE}"
    assert judge(standard(signature=listed)) == Proof(ID)


def test_one_right_secret_of_several_is_enough() -> None:
    """While we change our secret, both are good; afterwards the old one is not."""
    assert judge(standard(), secrets=(OTHER_SECRET, SECRET)) == Proof(ID)
    assert judge(standard(), secrets=(OTHER_SECRET,)) is None


def test_the_other_names_of_the_headers() -> None:
    """Some senders say svix- where others say webhook-."""
    assert judge({name.replace("webhook", "svix"): value for name, value in standard().items()}) == Proof(ID)


def test_a_header_sent_twice_is_none() -> None:
    """Two ids, or two times: nobody can say which was signed."""
    twice = message(standard())
    doubled = Message("POST", "", [*twice.headers, (b"webhook-id", b"another")], BODY)
    assert verifier(Signature(scheme="standard"), [SECRET])(doubled, TIME) is None


@pytest.mark.parametrize(
    "body", [b'{"test":2432232314}', b'{"test": 2432232314} ', b"", b'{"test": 2432232315}']
)
def test_the_bytes_are_signed_not_their_meaning(body: bytes) -> None:
    """The same JSON in other bytes is another message."""
    assert verifier(Signature(scheme="standard"), [SECRET])(message(standard(), body), TIME) is None


def test_what_the_official_sender_signs_is_accepted() -> None:
    """The project's own library, as the other end."""
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    signature = Webhook(SECRET).sign("evt_1", at, '{"name":"Zoë"}')
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": int(at.timestamp()),
        "webhook-signature": signature,
    }
    sent = message(headers, '{"name":"Zoë"}'.encode())
    assert verifier(Signature(scheme="standard"), [SECRET])(sent, at.timestamp()) == Proof("evt_1")


def test_a_secret_that_is_no_key_is_told_at_once() -> None:
    """Without showing it."""
    with pytest.raises(SecretFormError) as told:
        verifier(Signature(scheme="standard"), ["whsec_not base64!"])
    assert "not base64" not in str(told.value)


V3 = "K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y="
V3_TIME = 1693657560000


def hubspot(
    headers: Mapping[str, Any] = MappingProxyType({}),
    *,
    now: float = V3_TIME / 1000,
    url: str = CLIENT_URL,
    body: bytes = CLIENT_BODY,
) -> bool:
    """Verify version 3."""
    told = {"X-HubSpot-Signature-v3": V3, "X-HubSpot-Request-Timestamp": V3_TIME, **headers}
    sent = message({name: value for name, value in told.items() if value is not None}, body, url)
    return verifier(Signature(scheme="hubspot"), [CLIENT_SECRET])(sent, now) is not None


def test_the_published_vector_of_hubspot() -> None:
    """Version 3, with its window of five minutes either way."""
    assert hubspot()
    assert hubspot(now=V3_TIME / 1000 + 300)
    assert not hubspot(now=V3_TIME / 1000 + 301)
    assert not hubspot(now=V3_TIME / 1000 - 301)


def test_what_is_nearly_hubspots_is_refused() -> None:
    """Another address, body or time, or no signature."""
    assert not hubspot(url=f"{CLIENT_URL}?x=1")
    assert not hubspot(body=CLIENT_BODY + b" ")
    for digest in (None, "", "x", "é", V3.replace("K", "L", 1)):
        assert not hubspot({"X-HubSpot-Signature-v3": digest})
    for stamp in (None, "", "now", V3_TIME // 1000):
        assert not hubspot({"X-HubSpot-Request-Timestamp": stamp})


def test_hubspot_signs_the_address_decoded() -> None:
    """The escapes it lists are decoded before signing, others are not."""
    signed = f"POST{CLIENT_URL}?a=x:y%20z".encode() + CLIENT_BODY + str(V3_TIME).encode()
    digest = base64.b64encode(hmac.digest(CLIENT_SECRET.encode(), signed, "sha256")).decode()
    assert hubspot({"X-HubSpot-Signature-v3": digest}, url=f"{CLIENT_URL}?a=x%3Ay%20z")


OLD_BODY = (
    b'[{"eventId":1,"subscriptionId":12345,"portalId":62515,"occurredAt":1564113600000,"subscriptionType":'
    b'"contact.creation","attemptNumber":0,"objectId":123,"changeSource":"CRM","changeFlag":"NEW","appId":54321}]'
)


@pytest.mark.parametrize(
    "scheme, version, method, body, digest",
    [
        (
            "hubspot_v1",
            "v1",
            "POST",
            CLIENT_BODY,
            "69fc6631a867edd4f9e9e627fc5c1148e3fbdd8b21837b6d2b8901c1fa57f750",
        ),
        (
            "hubspot_v1",
            "v1",
            "POST",
            OLD_BODY,
            "232db2615f3d666fe21a8ec971ac7b5402d33b9a925784df3ca654d05f4817de",
        ),
        (
            "hubspot_v2",
            "v2",
            "POST",
            CLIENT_BODY,
            "4fe4e3a7d3cf09db53be39d0a58130e2aaba074ec123a9e355b876a689a1c383",
        ),
        (
            "hubspot_v2",
            "v2",
            "POST",
            b'{"example_field":"example_value"}',
            "9569219f8ba981ffa6f6f16aa0f48637d35d728c7e4d93d0d52efaa512af7900",
        ),
        ("hubspot_v2", "v2", "GET", b"", "eee2dddcc73c94d699f5e395f4b9d454a069a6855fbfa152e91e88823087200e"),
    ],
)
def test_the_published_vectors_of_hubspots_older_versions(
    scheme: Any, version: str, method: str, body: bytes, digest: str
) -> None:
    """Where they are asked for; and each version only as itself."""
    judge_old = verifier(Signature(scheme=scheme), [CLIENT_SECRET])
    told = {"X-HubSpot-Signature": digest, "X-HubSpot-Signature-Version": version}
    assert judge_old(message(told, body, method=method), 0) == Proof()
    assert judge_old(message(told, body + b" ", method=method), 0) is None
    assert judge_old(message({**told, "X-HubSpot-Signature-Version": "v3"}, body, method=method), 0) is None
    assert judge_old(message({**told, "X-HubSpot-Signature": "zz"}, body, method=method), 0) is None


def digest_of(signed: bytes, algorithm: str = "sha256", secret: bytes = b"abc") -> bytes:
    """An HMAC."""
    return hmac.digest(secret, signed, algorithm)


HMACS: list[tuple[str, dict[str, Any], dict[str, str], str | None]] = [
    ("plain hex", {}, {"X-Signature": digest_of(BODY).hex()}, None),
    ("hex in capitals", {}, {"X-Signature": digest_of(BODY).hex().upper()}, None),
    (
        "a prefix, as GitHub has it",
        {"header": "X-Hub-Signature-256", "value": "sha256={digest}"},
        {"x-hub-signature-256": f"sha256={digest_of(BODY).hex()}"},
        None,
    ),
    (
        "base64, as Shopify has it",
        {"header": "X-Shopify-Hmac-Sha256", "encoding": "base64"},
        {"X-Shopify-Hmac-Sha256": base64.b64encode(digest_of(BODY)).decode()},
        None,
    ),
    (
        "a time in the same header, as Stripe has it",
        {"value": "t={timestamp},v1={digest}", "signed": "{timestamp}.{body}"},
        {"X-Signature": f"t={TIME},v1={digest_of(b'%d.' % TIME + BODY).hex()}"},
        None,
    ),
    (
        "a time in a header of its own, as Slack has it",
        {"value": "v0={digest}", "signed": "v0:{timestamp}:{body}", "timestamp_header": "X-Time"},
        {"X-Signature": f"v0={digest_of(b'v0:%d:' % TIME + BODY).hex()}", "X-Time": str(TIME)},
        None,
    ),
    (
        "milliseconds, method and address",
        {
            "signed": "{method}{url}{body}{timestamp}",
            "timestamp_header": "X-Time",
            "timestamp_unit": "milliseconds",
        },
        {
            "X-Signature": digest_of(f"POST{CLIENT_URL}".encode() + BODY + b"%d" % (TIME * 1000)).hex(),
            "X-Time": str(TIME * 1000),
        },
        None,
    ),
    (
        "an id before the digest, signed",
        {"value": "{id}:{digest}", "signed": "{id}.{body}"},
        {"X-Signature": f"evt:7:{digest_of(b'evt:7.' + BODY).hex()}"},
        "evt:7",
    ),
    (
        "a key's id before the digest, not signed",
        {"value": "{id}:{digest}"},
        {"X-Signature": f"key-1:{digest_of(BODY).hex()}"},
        None,
    ),
    (
        "an id before the digest, all in base64",
        {"value": "{id}:{digest}", "wrapped": "base64"},
        {"X-Signature": base64.b64encode(f"hook-1:{digest_of(BODY).hex()}".encode()).decode()},
        None,
    ),
    (
        "another digest",
        {"algorithm": "sha512", "encoding": "base64"},
        {"X-Signature": base64.b64encode(digest_of(BODY, "sha512")).decode()},
        None,
    ),
]


@pytest.mark.parametrize(
    "options, headers, event_id", [row[1:] for row in HMACS], ids=[row[0] for row in HMACS]
)
def test_a_described_hmac(options: dict[str, Any], headers: dict[str, str], event_id: str | None) -> None:
    """Header, prefix, encoding, what is signed, as it is described; nearly right is refused."""
    judge_it = verifier(Signature(scheme="hmac", **options), ["other", "abc"])
    proof = judge_it(message(headers), TIME)
    assert proof is not None
    assert proof.event_id == event_id
    assert (proof.once is not None) is (event_id is None and "timestamp" in options.get("signed", ""))
    assert judge_it(message(headers, BODY + b" "), TIME) is None
    assert verifier(Signature(scheme="hmac", **options), ["other"])(message(headers), TIME) is None
    assert judge_it(message({}), TIME) is None
    for name, value in headers.items():
        for odd in ("", "x", "sha256=", "é", "t=1,v1=zz", f"{value} "):
            assert judge_it(message({**headers, name: odd}), TIME) is None
    if "timestamp" in options.get("signed", ""):
        assert judge_it(message(headers), TIME + 301) is None
        assert judge_it(message(headers), TIME - 301) is None


def dated(body: bytes, time: int = TIME, *, algorithm: Any = "sha512", encoding: Any = "hex") -> Proof:
    """What a message with a signed time proves."""
    scheme: dict[str, Any] = {"value": "t={timestamp},v1={digest}", "signed": "{timestamp}.{body}"}
    judge_it = verifier(Signature(scheme="hmac", **scheme, algorithm=algorithm, encoding=encoding), ["abc"])
    digest = digest_of(b"%d." % time + body, algorithm)
    shown = digest.hex() if encoding == "hex" else base64.b64encode(digest).decode()
    proof = judge_it(message({"X-Signature": f"t={time},v1={shown}"}, body), time)
    assert proof is not None
    return proof


def test_a_list_may_end_with_several_signatures() -> None:
    """Whichever is right, as while a sender changes its secret; the name is the same with fewer of them."""
    judge_it = verifier(
        Signature(scheme="hmac", value="t={timestamp},v1={digest}", signed="{timestamp}.{body}"),
        ["new", "old"],
    )
    signed = b"%d." % TIME + BODY
    new, old, strange = (hmac.digest(key, signed, "sha256").hex() for key in (b"new", b"old", b"strange"))

    def told(*digests: str) -> Proof | None:
        return judge_it(
            message({"X-Signature": ",".join((f"t={TIME}", *(f"v1={each}" for each in digests)))}), TIME
        )

    proof = told(new, old)
    assert proof is not None
    assert {told(new), told(old), told(strange, new), told("zz", old), told(old, new)} == {proof}
    assert [told(strange), told("zz"), told(strange, strange), told()] == [None] * 4
    assert told(*[strange] * 15, new) == proof
    assert told(*[strange] * 16, new) is None
    sha = verifier(Signature(scheme="hmac", value="sha256={digest}"), ["new"])
    right = hmac.digest(b"new", BODY, "sha256").hex()
    assert sha(message({"X-Signature": f"sha256={right}"}), TIME) is not None
    assert sha(message({"X-Signature": f"sha256={right},sha256={right}"}), TIME) is None


def test_a_message_with_a_signed_time_has_a_name() -> None:
    """The same one however its signature is written, another for another body or time."""
    name = dated(BODY).once
    assert name is not None
    assert re.fullmatch("signed-[0-9a-f]{64}", name)
    assert digest_of(b"%d." % TIME + BODY, "sha512").hex()[:64] not in name
    assert dated(BODY, encoding="base64").once == name
    assert len({name, dated(BODY + b" ").once, dated(BODY, TIME + 1).once}) == 3


@pytest.mark.parametrize(
    "options, told",
    [
        ({"value": "sha256="}, "value: must hold {digest}"),
        ({"value": "{digest}{digest}"}, "value: must hold {digest}"),
        ({"value": "{id}{id}{digest}"}, "value: must hold {digest}"),
        ({"value": "{digest}{body}"}, "value: must hold {digest}"),
        ({"signed": "{timestamp}"}, "signed: must hold {body}"),
        ({"signed": "{body}{secret}"}, "signed: must hold {body}"),
        ({"signed": "{timestamp}{body}"}, "must be signed if it is sent"),
        ({"timestamp_header": "X-Time"}, "must be signed if it is sent"),
        ({"value": "{timestamp}{digest}"}, "must be signed if it is sent"),
        ({"signed": "{id}{body}"}, "says where to find"),
        ({"tolerance_seconds": 0}, "greater than or equal to 1"),
        ({"public_url": "http://crm.example"}, "https"),
    ],
)
def test_a_scheme_that_cannot_work_is_told_at_the_start(options: dict[str, Any], told: str) -> None:
    """A time that is not signed protects from nothing: such descriptions are mistakes."""
    with pytest.raises(ValidationError, match=told.replace("{", r"\{")):
        Signature(scheme="hmac", **options)
