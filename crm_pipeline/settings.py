"""Settings: the environment, `.env` and the connection file, checked once, as typed values."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from crm_pipeline import instants
from crm_pipeline.checked import (
    CRM_URL_FORM,
    HOOK_FORM,
    MAIL_FORM,
    REGION_FORM,
    SMTP_FORM,
    ZONE_FORM,
    CrmUrl,
    Hook,
    MailAddress,
    Region,
    SmtpServer,
    ZoneName,
)
from crm_pipeline.connection import Connection, ConnectorType
from crm_pipeline.connection_file import ConnectionFileError, Source, read_file, validate, with_preset
from crm_pipeline.logs import LogFormat
from crm_pipeline.misspelt import misspelt

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_INTERVAL = 31 * 24 * 60
"""Minutes in the longest month."""
_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")
_FLAG_FORM = "must be true, false, 1, 0, yes, no, on or off"
_KEY_FORM = "must be printable ASCII characters, without blanks at the ends"
_NETWORKS_FORM = "must be addresses or networks, comma separated, such as 10.0.0.0/8,192.0.2.7"
_PROXIES_FORM = f"{_NETWORKS_FORM}, not /0: everybody could name an address of his choice"
DATABASE_FORM = "must be an SQLAlchemy URL: sqlite:///path/to/file or postgresql://user:password@host/name"
_VENDOR_HOSTS = (
    (re.compile(r"(.+\.)?hubapi\.com"), ConnectorType.HUBSPOT),
    (re.compile(r".+\.(salesforce|force)\.com"), ConnectorType.SALESFORCE),
    (re.compile(r"(.+\.)?zohoapis\.[a-z]{2,3}(\.[a-z]{2})?"), ConnectorType.ZOHO),
)


class SettingsError(ValueError):
    """Settings cannot be used. One line for each mistake; never a value, it may be a secret."""

    def __init__(self, *problems: str) -> None:
        """Keep the mistakes apart for callers that list them."""
        super().__init__("\n".join(problems))
        self.problems = problems


class SyncMode(StrEnum):
    """Start value of the polling flag."""

    WEBHOOK = "webhook"
    POLLING = "polling"


class PushMode(StrEnum):
    """Who decides that changed contacts are written to the CRM."""

    MANUAL = "manual"
    AUTO = "auto"
    OFF = "off"


class Nightly(StrEnum):
    """What the nightly comparison of both sides does with what it finds."""

    REPORT = "report"
    REPAIR = "repair"
    OFF = "off"


class WebhookApply(StrEnum):
    """When a landed webhook is applied: by the sensor, or before the answer."""

    SENSOR = "sensor"
    NOW = "now"


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in _TRUE + _FALSE:
        raise ValueError
    return text in _TRUE


_COMMON = frozenset({"crm_api_key", "database_url", "log_format"})
"""Settings that other programs have variables with names like."""


def _not_everybody(networks: tuple[Network, ...]) -> tuple[Network, ...]:
    if any(network.prefixlen == 0 for network in networks):
        raise ValueError
    return networks


def _whole_number(value: object) -> object:
    """Keep ``30.5``, ``3_0`` and ``٣٠`` out, which ``int`` would partly take."""
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,9}", value.strip()):
        raise ValueError
    return value


def _day(value: object) -> object:
    """Keep time stamps and days to come out: partitions start at a midnight that has been."""
    day = date.fromisoformat(value.strip()) if isinstance(value, str) else value
    if not isinstance(day, date) or day > instants.now().date():
        raise ValueError
    return day


def _word(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _items(value: object) -> object:
    if not isinstance(value, str):
        return value
    items = tuple(item.strip() for item in value.split(",") if item.strip())
    if value.strip() and not items:
        raise ValueError  # nothing but commas is a slip, and must not mean that nothing is restricted
    return items


def _secret(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    if not text or text != text.strip() or not (text.isascii() and text.isprintable()):
        raise ValueError
    return value


def _token_key(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    if len(base64.urlsafe_b64decode(text)) != 32:  # noqa: PLR2004 - a Fernet key
        raise ValueError
    return value


def _secrets(value: object) -> object:
    items = _items(value)
    if not items:
        raise ValueError
    return tuple(_secret(item) for item in items)  # type: ignore[attr-defined]


def _webhook_secrets(value: object) -> object:
    """Blanks are no part of a secret, and none is cut off: a copied one must work or be refused."""
    return tuple(_secret(item) for item in value.split(",")) if isinstance(value, str) else value


def checked_database_url(value: object) -> str:
    """Name the driver and make an SQLite path absolute: processes may differ in their folder.

    Raises:
        ValueError: it is no such URL; without the text, which may hold a password.
    """
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - half a second, and only loading needs it
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        url = make_url(str(value))
    except (ArgumentError, ValueError):
        raise ValueError from None
    if url.drivername in {"postgresql", "postgresql+psycopg"} and url.database:
        url = url.set(drivername="postgresql+psycopg")
    elif url.drivername in {"sqlite", "sqlite+pysqlite"} and url.database not in {None, "", ":memory:"}:
        url = url.set(database=str(Path(str(url.database)).absolute()))
    else:
        raise ValueError
    return url.render_as_string(hide_password=False)


def _dagster_url(value: object) -> str:
    """Name the one driver that Dagster's storage works with: with psycopg 3, its runs never start.

    And its time zone: Dagster takes for UTC what the server's clock says in the server's zone.
    """
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - see checked_database_url

    text = str(value).replace("postgresql+psycopg2://", "postgresql://", 1)
    url = make_url(checked_database_url(text))
    if url.get_backend_name() != "postgresql":
        raise ValueError
    options = f"{url.query.get('options', '')} -c timezone=UTC".strip()
    url = url.set(drivername="postgresql+psycopg2").update_query_dict({"options": options})
    return url.render_as_string(hide_password=False)


Flag = Annotated[bool, BeforeValidator(_flag)]
WholeNumber = Annotated[int, BeforeValidator(_whole_number)]
Secret = Annotated[SecretStr, BeforeValidator(_secret)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_secrets)]
WebhookSecrets = Annotated[tuple[Secret, ...], BeforeValidator(_webhook_secrets)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_items)]


class Settings(BaseSettings):
    """Every variable; a field's name in capitals is the variable, its description what it accepts."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        enable_decoding=False,
        extra="ignore",
        frozen=True,
        validate_default=False,
    )

    external_crm_enabled: Flag = Field(default=False, description=_FLAG_FORM)
    external_crm_api_url: CrmUrl | None = Field(None, description=CRM_URL_FORM)
    external_crm_api_key: Secret | None = Field(None, description=_KEY_FORM)
    external_crm_sync_mode: Annotated[SyncMode, BeforeValidator(_word)] = Field(
        SyncMode.WEBHOOK, description="must be webhook or polling"
    )
    external_crm_sync_interval: WholeNumber = Field(
        30, ge=1, le=LONGEST_INTERVAL, description=f"must be whole minutes from 1 to {LONGEST_INTERVAL}"
    )
    external_crm_webhook_secret: WebhookSecrets = Field(
        (),
        description="must be printable ASCII characters without blanks at the ends; several, comma separated",
    )
    api_auth_enabled: Flag = Field(default=True, description=_FLAG_FORM)
    crm_api_key: Secrets = Field(
        (), description="must be keys of printable ASCII characters, comma separated, at least one"
    )
    rate_limit_enabled: Flag = Field(default=True, description=_FLAG_FORM)
    rate_limit: WholeNumber = Field(
        100, ge=1, le=1_000_000, description="must be whole requests a minute from 1 to 1000000"
    )
    rate_limit_storage: Secret | None = Field(
        None, description="must be the URL of a store that processes share, such as redis://localhost:6379"
    )
    external_crm_type: Annotated[ConnectorType, BeforeValidator(_word)] | None = Field(
        None, description=f"must be one of {', '.join(ConnectorType)}"
    )
    external_crm_config: Path | None = Field(None, description="must be the path of a connection file")
    external_crm_token_key: Annotated[SecretStr, BeforeValidator(_token_key)] | None = Field(
        None, description="must be 32 random bytes in URL-safe base64"
    )
    database_url: Annotated[str, BeforeValidator(checked_database_url)] = Field(
        "sqlite:///var/crm_pipeline.db", validate_default=True, repr=False, description=DATABASE_FORM
    )
    dagster_database_url: Annotated[str, BeforeValidator(_dagster_url)] | None = Field(
        None, repr=False, description="must be the URL of a PostgreSQL database"
    )
    external_crm_push: Annotated[PushMode, BeforeValidator(_word)] = Field(
        PushMode.MANUAL, description="must be manual, auto or off"
    )
    external_crm_reconcile: Annotated[Nightly, BeforeValidator(_word)] = Field(
        Nightly.REPORT, description="must be report, repair or off"
    )
    webhook_apply: Annotated[WebhookApply, BeforeValidator(_word)] = Field(
        WebhookApply.SENSOR, description="must be sensor or now"
    )
    external_crm_service: str | None = Field(
        None,
        pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$",
        description="must be a class written module:Class, such as my_package.my_module:Mine",
    )
    trusted_proxies: Annotated[Networks, AfterValidator(_not_everybody)] = Field(
        (), description=_PROXIES_FORM
    )
    allowed_ips: Networks = Field((), description=_NETWORKS_FORM)
    external_crm_timezone: ZoneName = Field("UTC", description=ZONE_FORM)
    external_crm_first_day: Annotated[date, BeforeValidator(_day)] = Field(
        date(2020, 1, 1), description="must be a day such as 2020-01-31, not after today"
    )
    external_crm_backfill_days: WholeNumber | None = Field(
        None, ge=1, le=3660, description="must be whole days from 1 to 3660"
    )
    external_crm_default_region: Region = Field("ID", description=REGION_FORM)

    log_format: Annotated[LogFormat, BeforeValidator(_word)] = Field(
        LogFormat.JSON, description="must be json or text"
    )
    alert_slack_url: Hook | None = Field(None, description=HOOK_FORM)
    alert_url: Hook | None = Field(None, description=HOOK_FORM)
    alert_mail_to: Annotated[tuple[MailAddress, ...], BeforeValidator(_items)] = Field(
        (), description=MAIL_FORM
    )
    alert_mail_from: MailAddress | None = Field(None, description="must be a mail address")
    alert_smtp_url: SmtpServer | None = Field(None, description=SMTP_FORM)

    _file_values: Mapping[str, str] = PrivateAttr(default_factory=dict)
    """What `.env` said, for ``${NAME}`` in the connection file; never exported."""

    @cached_property
    def connection(self) -> Connection:
        """The CRM account: the connection file, where the variables that are set win over it.

        Raises:
            SettingsError: the file is wrong, or syncing is enabled and no URL is given.
        """
        data, source = self._connection_file()
        own = {
            "base_url": self.external_crm_api_url,
            "type": self.external_crm_type,
            "timezone": self._if_set("external_crm_timezone"),
            "default_region": self._if_set("external_crm_default_region"),
        }
        data |= {key: value for key, value in own.items() if value is not None}
        url = data.get("base_url")
        if isinstance(url, str):
            data.setdefault("type", type_of_host(url))
        elif self.external_crm_enabled and url is None:
            at = f" (or base_url in {self.external_crm_config})" if self.external_crm_config else ""
            raise SettingsError(f"EXTERNAL_CRM_API_URL{at} is needed while EXTERNAL_CRM_ENABLED is true")
        try:
            return validate(with_preset(data), source)
        except ConnectionFileError as error:
            raise SettingsError(*error.problems) from None

    def require_api_keys(self) -> tuple[SecretStr, ...]:
        """Return the keys callers of the HTTP API may use; none when authentication is off.

        Raises:
            SettingsError: authentication is on and there is no key.
        """
        if not self.api_auth_enabled:
            return ()
        if not self.crm_api_key:
            raise SettingsError(
                "CRM_API_KEY is needed while API_AUTH_ENABLED is true: one or more keys, comma separated"
            )
        return self.crm_api_key

    def public(self) -> dict[str, Any]:
        """Return what may be shown to anybody, by variable: of secrets, only whether they are set."""
        from sqlalchemy.engine import make_url  # noqa: PLC0415 - see checked_database_url

        shown = self.model_dump(mode="json")
        for name in (
            "external_crm_api_key",
            "external_crm_webhook_secret",
            "external_crm_token_key",
            "crm_api_key",
            "rate_limit_storage",
            "alert_slack_url",
            "alert_url",
            "alert_smtp_url",
        ):
            shown[name] = "set" if getattr(self, name) else "not set"
        for name in ("database_url", "dagster_database_url"):
            if shown[name] is not None:
                database = make_url(shown[name]).set(query={})  # a query may hold passwords as well
                shown[name] = database.render_as_string(hide_password=True)
        shown["external_crm_type"] = self.connection.type.value
        shown["external_crm_api_url"] = self.connection.base_url or None
        return {name.upper(): value for name, value in shown.items()}

    def _if_set(self, name: str) -> Any:
        return getattr(self, name) if name in self.model_fields_set else None

    def _connection_file(self) -> tuple[dict[str, Any], Source]:
        if self.external_crm_config is None:
            return {}, Source("settings")
        present = {name: value for name, value in os.environ.items() if value}
        try:
            return read_file(self.external_crm_config, {**self._file_values, **present})
        except ConnectionFileError as error:
            raise SettingsError(*error.problems) from None


def type_of_host(url: str) -> ConnectorType:
    """Tell the vendor from the host of its API; ``generic`` for every other host."""
    host = urlsplit(url).hostname or ""
    return next((kind for pattern, kind in _VENDOR_HOSTS if pattern.fullmatch(host)), ConnectorType.GENERIC)


def load_settings(env_file: Path | None = None, **own: Any) -> Settings:
    """Read and check everything: the environment first, then ``.env`` in the working folder.

    Args:
        env_file: another file than ``.env``; this one must exist.
        own: values by field name that win over both.

    Raises:
        SettingsError: all mistakes found, one line each.
    """
    file_values = _read_env_file(env_file or Path(".env"), required=env_file is not None)
    present = [*file_values, *(name for name, value in os.environ.items() if value), *own]
    ours = [name.upper() for name in Settings.model_fields if name not in _COMMON]
    slips = misspelt([name.upper() for name in present], ours)
    try:
        settings = Settings(_env_file=env_file or ".env", **own)
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False)
        names = dict.fromkeys(str(detail["loc"][0]) for detail in details)
        raise SettingsError(
            *(f"{name.upper()} {Settings.model_fields[name].description}" for name in names), *slips
        ) from None
    if slips:
        raise SettingsError(*slips)
    settings._file_values = file_values  # noqa: SLF001 - ours, and not a variable
    settings.connection  # noqa: B018 - a wrong connection file is a start-up error too
    mail = (settings.alert_mail_to, settings.alert_mail_from, settings.alert_smtp_url)
    if any(mail) and not all(mail):
        raise SettingsError(
            "ALERT_MAIL_TO, ALERT_MAIL_FROM and ALERT_SMTP_URL go together: set all three or none"
        )
    return settings


def _read_env_file(path: Path, *, required: bool) -> dict[str, str]:
    """Return the file's names and values; pydantic-settings would skip lines it cannot read."""
    if not (required or path.exists()):
        return {}
    try:
        with path.open(encoding="utf-8") as lines:
            broken = [binding.original.line for binding in parse_stream(lines) if binding.error]
        values = dotenv_values(path)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text") from None
    if broken:
        raise SettingsError(*(f"{path}:{line}: must be NAME=value" for line in broken))
    return {name: value for name, value in values.items() if value}
