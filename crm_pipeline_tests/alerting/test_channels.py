"""Messages over real sockets: HTTP and SMTP."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_string
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from crm_pipeline.alerting.channels import DeliveryError, channels_of
from crm_pipeline.alerting.messages import Message
from crm_pipeline.settings import SettingsError, load_settings

MESSAGE = Message("a subject", "line one\nline two", {"source": "crm_pipeline", "incidents": []})


class Hook(BaseHTTPRequestHandler):
    """Takes documents."""

    taken: ClassVar[list[tuple[str, Any]]] = []
    status: ClassVar[int] = 200

    def do_POST(self) -> None:
        """Keep it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.taken.append((self.path, json.loads(body)))
        self.send_response(self.status)
        self.send_header("Location", "http://elsewhere.example/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


class Server(socketserver.ThreadingTCPServer):
    """Ends even if a client holds on."""

    daemon_threads = True
    block_on_close = False


class Mailbox(socketserver.StreamRequestHandler):
    """Speaks enough SMTP to take one mail; refuses a recipient in ``refused``."""

    mails: ClassVar[list[str]] = []
    refused: ClassVar[str] = "nobody"

    def handle(self) -> None:
        """Talk."""
        self._say("220 ready")
        while line := self.rfile.readline().decode().strip():
            if line.upper() == "DATA":
                self._say("354 go on")
                self.mails.append(self._text())
                self._say("250 taken")
            elif line.upper() == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("550 no" if self.refused in line else "250 fine")

    def _text(self) -> str:
        lines = []
        while (line := self.rfile.readline().decode().rstrip("\r\n")) != ".":
            lines.append(line)
        return "\n".join(lines)

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@contextmanager
def _served(server: socketserver.TCPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A listener's address."""
    monkeypatch.setattr(Hook, "taken", [])
    with _served(ThreadingHTTPServer(("127.0.0.1", 0), Hook)) as address:
        yield address


@pytest.fixture
def mail_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A mail server's address."""
    monkeypatch.setattr(Mailbox, "mails", [])
    with _served(Server(("127.0.0.1", 0), Mailbox)) as address:
        yield address


def test_slack_gets_its_text_and_any_url_the_document(hook: str) -> None:
    """Each in the form that is read there."""
    settings = load_settings(
        alert_slack_url=f"http://{hook}/services/s3cret", alert_url=f"http://{hook}/alerts?key=s3cret"
    )
    for channel in channels_of(settings).values():
        channel(MESSAGE)
    assert Hook.taken == [
        ("/services/s3cret", {"text": "line one\nline two"}),
        ("/alerts?key=s3cret", {"source": "crm_pipeline", "incidents": []}),
    ]


@pytest.mark.parametrize("status", [302, 400, 500])
def test_any_other_answer_is_a_failure_without_the_address(
    hook: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect is not followed: the address is the secret."""
    monkeypatch.setattr(Hook, "status", status)
    channel = channels_of(load_settings(alert_url=f"http://{hook}/s3cret"))["url"]
    with pytest.raises(DeliveryError, match=f"^it answered {status}$"):
        channel(MESSAGE)


def test_nobody_there_is_a_failure_without_the_address() -> None:
    """Neither the host nor the path is told."""
    channels = channels_of(
        load_settings(
            alert_url="http://127.0.0.1:9/s3cret",
            alert_mail_to="team@example.org",
            alert_mail_from="crm@example.org",
            alert_smtp_url="smtp://user:s3cret@127.0.0.1:9",
        )
    )
    for channel in channels.values():
        with pytest.raises(DeliveryError, match=r"^\w+$"):
            channel(MESSAGE)


def _mail(server: str) -> dict[str, Any]:
    return {
        "alert_mail_to": "team@example.org, boss@example.org",
        "alert_mail_from": "crm@example.org",
        "alert_smtp_url": f"smtp://{server}",
    }


def test_a_mail_arrives(mail_server: str) -> None:
    """With its subject, sender and receivers."""
    channels_of(load_settings(**_mail(mail_server)))["mail"](MESSAGE)
    mail = message_from_string(Mailbox.mails[0])
    assert (mail["Subject"], mail["From"]) == ("a subject", "crm@example.org")
    assert mail["To"] == "team@example.org, boss@example.org"
    assert mail.get_payload().strip() == "line one\nline two"  # type: ignore[union-attr]


def test_a_mail_that_is_refused_is_a_failure(mail_server: str) -> None:
    """All receivers refused: nothing was sent, and no address is told."""
    settings = load_settings(**{**_mail(mail_server), "alert_mail_to": "nobody@example.org"})
    with pytest.raises(DeliveryError, match=r"^SMTPRecipientsRefused$"):
        channels_of(settings)["mail"](MESSAGE)


def test_no_channel_is_set_by_default() -> None:
    """Nobody is told anything unasked."""
    assert channels_of(load_settings()) == {}


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"alert_slack_url": "http://hooks.example/s3cret"}, "ALERT_SLACK_URL must be an absolute https URL"),
        ({"alert_url": "https://"}, "ALERT_URL must be an absolute https URL"),
        ({"alert_url": "https://host:70000/"}, "ALERT_URL must be an absolute https URL"),
        ({"alert_mail_to": "team"}, "ALERT_MAIL_TO must be mail addresses"),
        ({"alert_smtp_url": "mail.example:587"}, "ALERT_SMTP_URL must be smtp://host:port"),
        ({"alert_smtp_url": "smtp://mail.example:s3cret"}, "ALERT_SMTP_URL must be smtp://host:port"),
        (
            {"alert_mail_to": "team@example.org"},
            "ALERT_MAIL_TO, ALERT_MAIL_FROM and ALERT_SMTP_URL go together",
        ),
    ],
)
def test_what_cannot_be_reached_is_refused_at_start(settings: dict[str, Any], named: str) -> None:
    """The variable is named, its value is not."""
    with pytest.raises(SettingsError, match=f"^{named}") as refused:
        load_settings(**settings)
    assert "s3cret" not in str(refused.value)


def test_secrets_are_not_shown() -> None:
    """``status`` tells only that they are set."""
    shown = load_settings(
        alert_slack_url="https://hooks.example/s3cret",
        alert_url="https://alerts.example/s3cret",
        alert_mail_to="team@example.org",
        alert_mail_from="crm@example.org",
        alert_smtp_url="smtps://user:s3cret@mail.example",
    ).public()
    assert [shown[name] for name in ("ALERT_SLACK_URL", "ALERT_URL", "ALERT_SMTP_URL")] == ["set"] * 3
    assert "s3cret" not in repr(shown)
