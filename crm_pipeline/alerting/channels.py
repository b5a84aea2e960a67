"""Channels: Slack-compatible webhooks, any URL, mail. A failure names its kind and no address."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import requests

from crm_pipeline.alerting.messages import Message
from crm_pipeline.checked import is_loopback
from crm_pipeline.settings import Settings

Channel: TypeAlias = Callable[[Message], None]
_SECONDS = (3.05, 7.0)
"""To connect, and from byte to byte: how long a channel may take in all is delivery's affair."""
_SMTP_SECONDS = 7.0
_MOST_CHARACTERS = 3000
"""Slack cuts a text at 4,000."""


class DeliveryError(Exception):
    """A channel did not take a message."""


def channels_of(settings: Settings) -> dict[str, Channel]:
    """The channels that are set, by name."""
    found: dict[str, Channel] = {}
    if settings.alert_slack_url is not None:
        slack = settings.alert_slack_url.get_secret_value()
        found["slack"] = lambda message: _post(slack, {"text": message.text[:_MOST_CHARACTERS]})
    if settings.alert_url is not None:
        url = settings.alert_url.get_secret_value()
        found["url"] = lambda message: _post(url, message.document)
    sender, to = settings.alert_mail_from, settings.alert_mail_to
    if settings.alert_smtp_url is not None and sender is not None:
        server = settings.alert_smtp_url.get_secret_value()
        found["mail"] = lambda message: _send_mail(server, sender, to, message)
    return found


def _post(url: str, document: Mapping[str, Any]) -> None:
    with requests.Session() as session:
        session.trust_env = False  # as for the CRM: no proxy, no .netrc
        try:
            # Streamed: nobody reads what it says beside its status, however long that is.
            answer = session.post(url, json=document, timeout=_SECONDS, allow_redirects=False, stream=True)
            answer.close()
        except requests.RequestException as error:  # its text holds the URL, which is a secret
            raise DeliveryError(type(error).__name__) from None
    if not answer.ok or answer.is_redirect:
        raise DeliveryError(f"it answered {answer.status_code}")


def _send_mail(server: str, sender: str, to: tuple[str, ...], message: Message) -> None:
    parts = urlsplit(server)
    host, user = str(parts.hostname), parts.username
    ours = sender.rpartition("@")[2]  # how we greet; smtplib would ask the name service for our own name
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = message.subject, sender, ", ".join(to)
    mail.set_content(message.text)
    secure = ssl.create_default_context()
    try:
        with (
            smtplib.SMTP_SSL(host, parts.port or 465, ours, timeout=_SMTP_SECONDS, context=secure)
            if parts.scheme == "smtps"
            else smtplib.SMTP(host, parts.port or 587, ours, timeout=_SMTP_SECONDS)
        ) as smtp:
            if parts.scheme == "smtp" and not is_loopback(host):
                smtp.starttls(context=secure)
            if user is not None:
                smtp.login(unquote(user), unquote(parts.password or ""))
            smtp.send_message(mail)
    except (smtplib.SMTPException, OSError) as error:  # texts may hold addresses
        raise DeliveryError(type(error).__name__) from None
