"""Settings: every variable, good and bad values, and what may be shown of them."""

from __future__ import annotations

import os
from datetime import date
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from crm_pipeline.connection import ConnectorType
from crm_pipeline.logs import LogFormat
from crm_pipeline.misspelt import misspelt
from crm_pipeline.settings import Nightly, Settings, SettingsError, load_settings

VARIABLES = tuple(name.upper() for name in Settings.model_fields)
SECRET = "s3cr3t-value"
IN_UTC = "options=-c+timezone%3DUTC"


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    """Load settings with these variables set."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def shown(value: object) -> object:
    """Make values comparable: secrets opened, paths and networks as they are."""
    if isinstance(value, tuple):
        return tuple(shown(item) for item in value)
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


def test_defaults_are_those_of_the_documentation(tmp_path: Path) -> None:
    """Nothing set: off, webhook mode, 30 minutes, authentication on, first writes must be wanted."""
    settings = load_settings()
    assert settings.model_dump() == {
        "external_crm_enabled": False,
        "external_crm_api_url": None,
        "external_crm_api_key": None,
        "external_crm_sync_mode": "webhook",
        "external_crm_sync_interval": 30,
        "external_crm_webhook_secret": (),
        "api_auth_enabled": True,
        "crm_api_key": (),
        "rate_limit_enabled": True,
        "rate_limit": 100,
        "rate_limit_storage": None,
        "external_crm_type": None,
        "external_crm_config": None,
        "database_url": f"sqlite:///{tmp_path}/var/crm_pipeline.db",
        "dagster_database_url": None,
        "external_crm_push": "manual",
        "webhook_apply": "sensor",
        "external_crm_service": None,
        "trusted_proxies": (),
        "allowed_ips": (),
        "external_crm_backfill_days": None,
        "external_crm_reconcile": Nightly.REPORT,
        "log_format": LogFormat.JSON,
        "alert_slack_url": None,
        "alert_url": None,
        "alert_mail_to": (),
        "alert_mail_from": None,
        "alert_smtp_url": None,
        "external_crm_timezone": "UTC",
        "external_crm_first_day": date(2020, 1, 1),
        "external_crm_default_region": "ID",
        "external_crm_token_key": None,
    }


GOOD: list[tuple[str, str, object]] = [
    *(("EXTERNAL_CRM_ENABLED", text, False) for text in ("false", "False", "0", "NO", "off")),
    *(("API_AUTH_ENABLED", text, True) for text in ("true", "TRUE", "1", "Yes", "on", " true ")),
    ("API_AUTH_ENABLED", "OFF", False),
    ("RATE_LIMIT_ENABLED", "no", False),
    ("EXTERNAL_CRM_API_URL", "https://crm.example/api/contacts", "https://crm.example/api/contacts"),
    ("EXTERNAL_CRM_API_URL", "http://127.8.9.1:8080/x", "http://127.8.9.1:8080/x"),
    ("EXTERNAL_CRM_API_URL", "http://[::1]:8080", "http://[::1]:8080"),
    ("EXTERNAL_CRM_API_URL", "http://localhost/", "http://localhost/"),
    ("EXTERNAL_CRM_API_KEY", "pat-na1 with/blank=", "pat-na1 with/blank="),
    ("EXTERNAL_CRM_SYNC_MODE", "polling", "polling"),
    ("EXTERNAL_CRM_SYNC_MODE", "Webhook", "webhook"),
    *(("EXTERNAL_CRM_SYNC_INTERVAL", str(n), n) for n in (1, 45, 60, 90, 1440, 44640)),
    ("EXTERNAL_CRM_WEBHOOK_SECRET", "a$b{c}", ("a$b{c}",)),
    ("EXTERNAL_CRM_WEBHOOK_SECRET", "new,old", ("new", "old")),
    ("CRM_API_KEY", "old, new,", ("old", "new")),
    ("RATE_LIMIT", "1", 1),
    ("EXTERNAL_CRM_TYPE", "HubSpot", "hubspot"),
    ("DATABASE_URL", "postgresql://u:p%40w@db:5432/crm", "postgresql+psycopg://u:p%40w@db:5432/crm"),
    ("DATABASE_URL", "postgresql+psycopg://u@db/crm", "postgresql+psycopg://u@db/crm"),
    ("DAGSTER_DATABASE_URL", "postgresql://u:p%40w@db/d", f"postgresql+psycopg2://u:p%40w@db/d?{IN_UTC}"),
    ("DAGSTER_DATABASE_URL", "postgresql+psycopg://u@db/d", f"postgresql+psycopg2://u@db/d?{IN_UTC}"),
    ("DAGSTER_DATABASE_URL", "postgresql+psycopg2://u@db/d", f"postgresql+psycopg2://u@db/d?{IN_UTC}"),
    ("DATABASE_URL", "sqlite:////data/with space/crm.db", "sqlite:////data/with space/crm.db"),
    ("EXTERNAL_CRM_PUSH", "auto", "auto"),
    ("EXTERNAL_CRM_PUSH", "OFF", "off"),
    ("WEBHOOK_APPLY", "now", "now"),
    ("EXTERNAL_CRM_SERVICE", "my_package.sub:Mine", "my_package.sub:Mine"),
    ("TRUSTED_PROXIES", "10.0.0.0/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1/128"))),
    ("ALLOWED_IPS", "192.0.2.7", (ip_network("192.0.2.7/32"),)),
    ("EXTERNAL_CRM_TIMEZONE", "Asia/Jakarta", "Asia/Jakarta"),
    ("EXTERNAL_CRM_FIRST_DAY", "2024-02-29", date(2024, 2, 29)),
    ("EXTERNAL_CRM_DEFAULT_REGION", "sg", "SG"),
]


@pytest.mark.parametrize("name,text,expected", GOOD)
def test_a_value_is_read(monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: object) -> None:
    """Every variable takes the values its documentation names."""
    settings = load(monkeypatch, **{name: text})
    assert shown(getattr(settings, name.lower())) == expected


BAD: dict[str, tuple[str, ...]] = {
    "EXTERNAL_CRM_ENABLED": ("maybe", "2", "t", "y", " "),
    "API_AUTH_ENABLED": ("flase", "enabled", "-1"),
    "RATE_LIMIT_ENABLED": ("10",),
    "EXTERNAL_CRM_API_URL": (
        "crm.example/api",
        "/api",
        "ftp://crm.example",
        "http://crm.example",
        "http://127.0.0.1.crm.example/",
        "http://localhost.crm.example/",
        f"https://user:{SECRET}@crm.example/",
        f"https://crm.example/?key={SECRET}",
        "https://crm.example/#x",
        "https:///api",
        "https://crm.example:99999/",
        "https://crm.example:0/",
        "https://crm.example/a b",
        "https://[::1/",
    ),
    "EXTERNAL_CRM_API_KEY": (f"{SECRET}\n", f" {SECRET}", f"{SECRET}\tx", f"{SECRET}é"),
    "EXTERNAL_CRM_SYNC_MODE": ("both", "poll"),
    "EXTERNAL_CRM_SYNC_INTERVAL": ("0", "-5", "30.0", "1e3", "3_0", "٣٠", "half an hour", "44641", "9" * 30),
    "EXTERNAL_CRM_WEBHOOK_SECRET": (f"{SECRET} ", "  "),
    "CRM_API_KEY": (",", f"{SECRET},é"),
    "RATE_LIMIT": ("0", "-1", "lots", "1000001"),
    "EXTERNAL_CRM_TYPE": ("pipedrive",),
    "DATABASE_URL": (
        "crm.db",
        f"mysql://u:{SECRET}@db/crm",
        f"postgresql+psycopg2://u:{SECRET}@db/crm",
        "postgresql://db",
        "sqlite://",
        "sqlite:///:memory:",
        f"postgresql://u:{SECRET}@db:port/crm",
    ),
    "DAGSTER_DATABASE_URL": ("sqlite:///dagster.db", f"mysql://u:{SECRET}@db/crm", "postgresql://db"),
    "EXTERNAL_CRM_PUSH": ("true", "on", "never"),
    "WEBHOOK_APPLY": ("later",),
    "EXTERNAL_CRM_SERVICE": ("my_package.sub", "my-package:Mine", ":Mine", "a:b:c", "my_module:Mine()"),
    "TRUSTED_PROXIES": ("10.0.0.1/8", "proxy.example", "10.0.0.0/33", "0.0.0.0/0", "10.0.0.0/8,::/0"),
    "ALLOWED_IPS": ("all", "192.0.2", "192.0.2.7;192.0.2.8"),
    "EXTERNAL_CRM_TIMEZONE": ("Mars/Olympus", "America", "../../etc/passwd", "UTC+7", "/etc/localtime"),
    "EXTERNAL_CRM_FIRST_DAY": (
        "2023-02-29",
        "2020",
        "31.01.2020",
        "9999-01-01",
        "2020-01-31T09:00",
        "1577836800",
    ),
    "EXTERNAL_CRM_DEFAULT_REGION": ("ZZ", "IDN", "62", "I"),
}


@pytest.mark.parametrize("name,text", [(name, text) for name, texts in BAD.items() for text in texts])
def test_a_value_that_cannot_be_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """One line that names the variable and what it accepts, and never repeats the value."""
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, **{name: text})
    assert caught.value.problems == (f"{name} {Settings.model_fields[name.lower()].description}",)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_every_variable_says_what_it_accepts() -> None:
    """A variable added without words for its error would give an error nobody can act on."""
    for name, field in Settings.model_fields.items():
        assert (field.description or "").startswith("must be"), name


def test_all_mistakes_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mending settings takes one round, not one for each mistake."""
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, RATE_LIMIT="0", EXTERNAL_CRM_PUSH="x", API_AUTH_ENABLED="flase")
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "API_AUTH_ENABLED",
        "RATE_LIMIT",
        "EXTERNAL_CRM_PUSH",
    ]


@pytest.mark.parametrize(
    "slip, meant",
    [
        ("ALLOWED_IP", "ALLOWED_IPS"),
        ("TRUSTED_PROXY", "TRUSTED_PROXIES"),
        ("trusted_proxy", "TRUSTED_PROXIES"),
        ("EXTERNAL_CRM_SYNC_INTERVALL", "EXTERNAL_CRM_SYNC_INTERVAL"),
        ("EXTERNAL_CMR_PUSH", "EXTERNAL_CRM_PUSH"),
        ("ALERT_EMAIL_TO", "ALERT_MAIL_TO"),
    ],
)
def test_a_misspelt_name_is_a_mistake(monkeypatch: pytest.MonkeyPatch, slip: str, meant: str) -> None:
    """In the environment or the file, with all others, without its value; not where the right one is set."""
    told = f"{slip.upper()} is no setting; {meant} is"
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, **{slip: SECRET, "RATE_LIMIT": "0"})
    assert caught.value.problems[1:] == (told,)
    monkeypatch.setenv("RATE_LIMIT", "1")
    with pytest.raises(SettingsError, match=told):
        load_settings()
    monkeypatch.delenv(slip)
    Path(".env").write_text(f"{slip}={SECRET}\n")
    with pytest.raises(SettingsError, match=told):
        load_settings()
    assert misspelt({slip.upper(), meant}, VARIABLES) == []
    Path(".env").write_text(f"{slip}=\n")
    load_settings()


INNOCENT = """
    ALLOWED_HOSTS ALLOWED_ORIGINS TRUSTED_HOSTS AUTH_ENABLED API_KEY API_URL LOG_LEVEL LOGGING_FORMAT
    RATELIMIT RATELIMIT_ENABLED RATELIMIT_STORAGE_URL TEST_DATABASE_URL DATABASE_HOST SQLALCHEMY_DATABASE_URI
    PGHOST PGDATABASE PGUSER POSTGRES_URL REDIS_URL SLACK_URL SMTP_URL MAIL_FROM WEBHOOK_URL WEBHOOK_SECRET
    DAGSTER_HOME DAGSTER_POSTGRES_URL DAGSTER_PG_DATABASE DAGSTER_CLOUD_URL CODE_SERVER_HOST CODE_SERVER_PORT
    CRM_PIPELINE_COUNTER PROMETHEUS_MULTIPROC_DIR HUBSPOT_API_KEY HUBSPOT_CLIENT_SECRET SF_CLIENT_ID
    SF_PRIVATE_KEY ZOHO_REFRESH_TOKEN CRM_API_URL CRM_API_TOKEN CRM_API_KEY_ID MY_CRM_API_KEY CRM_URL
    EXTERNAL_CRM_CLIENT_ID EXTERNAL_CRM_CLIENT_SECRET EXTERNAL_CRM_REFRESH_TOKEN EXTERNAL_CRM_TOKEN
    EXTERNAL_CRM_TOKEN_URL EXTERNAL_CRM_API_TOKEN EXTERNAL_CRM_API_SECRET EXTERNAL_CRM_USERNAME
    RATE_LIMITER EXTERNAL_CRM_API_KEY2 EXTERNAL_CRM_API_KEY_OLD LOG_FORMATTER
    HTTP_PROXY HTTPS_PROXY NO_PROXY PATH HOME TZ LANG
"""


def test_names_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if they are like ours: whole words differ, or ours are common. Ours are no slips of each other."""
    load(monkeypatch, DATABASE_URI="sqlite:///theirs.db", CRM_APP_KEY="theirs", LOG_FORMATS="theirs")
    assert misspelt(INNOCENT.split(), VARIABLES) == []
    assert not [name for name in VARIABLES if misspelt({name}, VARIABLES)]


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files write NAME= for what is not wanted: all defaults, and .env still counts."""
    Path(".env").write_text("RATE_LIMIT=7\n")
    settings = load(monkeypatch, **dict.fromkeys(VARIABLES, ""))
    assert settings.rate_limit == 7
    assert settings.model_dump(exclude={"rate_limit"}) == load_settings().model_dump(exclude={"rate_limit"})
    assert settings.external_crm_sync_interval == 30


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env` holds what the environment does not say, and is never exported into it."""
    Path(".env").write_text("# ours\nexport RATE_LIMIT=7\nEXTERNAL_CRM_PUSH='auto'\nOTHER_TOOL=x\n")
    settings = load(monkeypatch, RATE_LIMIT="8")
    assert (settings.rate_limit, settings.external_crm_push) == (8, "auto")
    assert "EXTERNAL_CRM_PUSH" not in os.environ


def test_a_caller_may_say_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values given by name win over the environment and are checked like it."""
    monkeypatch.setenv("RATE_LIMIT", "8")
    assert load_settings(rate_limit=9).rate_limit == 9
    with pytest.raises(SettingsError, match="RATE_LIMIT must be"):
        load_settings(rate_limit=0)


def test_another_env_file_must_exist(tmp_path: Path) -> None:
    """A file that was asked for by name is not silently left out."""
    other = tmp_path / "other.env"
    with pytest.raises(SettingsError, match=r"other\.env: cannot be read"):
        load_settings(other)
    other.write_text("RATE_LIMIT=9\n")
    assert load_settings(other).rate_limit == 9


def test_an_env_line_that_is_no_assignment_is_an_error() -> None:
    """A line that the parser would skip is a mistake with its number, without its text."""
    Path(".env").write_text(f"RATE_LIMIT=7\nCRM_API_KEY: {SECRET}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert caught.value.problems == (".env:2: must be NAME=value",)


def test_enabled_without_a_url_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switched on, but nothing to talk to: found at start, naming the variable."""
    with pytest.raises(SettingsError, match="EXTERNAL_CRM_API_URL is needed while EXTERNAL_CRM_ENABLED"):
        load(monkeypatch, EXTERNAL_CRM_ENABLED="true")


def test_the_api_needs_keys_unless_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Authentication fails closed when the API asks; settings as such load without a key."""
    settings = load_settings()
    with pytest.raises(SettingsError, match="CRM_API_KEY is needed"):
        settings.require_api_keys()
    two = load(monkeypatch, CRM_API_KEY="old,new").require_api_keys()
    assert [key.get_secret_value() for key in two] == ["old", "new"]
    assert load(monkeypatch, API_AUTH_ENABLED="false").require_api_keys() == ()


@pytest.mark.parametrize(
    "url,expected",
    [
        ("https://api.hubapi.com/crm/v3/objects/contacts", ConnectorType.HUBSPOT),
        ("https://your-instance.salesforce.com/services/data", ConnectorType.SALESFORCE),
        ("https://mine.my.force.com/", ConnectorType.SALESFORCE),
        ("https://www.zohoapis.com/crm/v2/Contacts", ConnectorType.ZOHO),
        ("https://www.zohoapis.com.au/crm/v2/Contacts", ConnectorType.ZOHO),
        ("https://zohoapis.eu/", ConnectorType.ZOHO),
        ("https://crm.example/api.hubapi.com", ConnectorType.GENERIC),
        ("https://notsalesforce.com/", ConnectorType.GENERIC),
        ("https://hubapi.com.evil.example/", ConnectorType.GENERIC),
    ],
)
def test_the_type_follows_the_host(monkeypatch: pytest.MonkeyPatch, url: str, expected: object) -> None:
    """The guide's vendor URLs need no further variable; a type that is set wins."""
    assert load(monkeypatch, EXTERNAL_CRM_API_URL=url).connection.type is expected
    own = load(monkeypatch, EXTERNAL_CRM_API_URL=url, EXTERNAL_CRM_TYPE="zoho")
    assert own.connection.type is ConnectorType.ZOHO


def test_nothing_that_is_shown_holds_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Status, doctor, a traceback's repr: keys only as set or not set."""
    settings = load(
        monkeypatch,
        EXTERNAL_CRM_API_KEY=SECRET,
        EXTERNAL_CRM_WEBHOOK_SECRET=SECRET,
        CRM_API_KEY=SECRET,
        DATABASE_URL=f"postgresql://u:{SECRET}@db/crm?sslpassword={SECRET}",
        DAGSTER_DATABASE_URL=f"postgresql://u:{SECRET}@db/dagster",
    )
    public: dict[str, Any] = settings.public()
    assert SECRET not in repr(settings) + str(settings) + repr(public)
    assert public["DATABASE_URL"] == "postgresql+psycopg://u:***@db/crm"
    assert public["DAGSTER_DATABASE_URL"] == "postgresql+psycopg2://u:***@db/dagster"
    assert public["EXTERNAL_CRM_API_KEY"] == "set"
    assert set(public) == set(VARIABLES)


@pytest.mark.parametrize("variable", ["EXTERNAL_CRM_WEBHOOK_SECRET", "CRM_API_KEY", "ALLOWED_IPS"])
@pytest.mark.parametrize("text", [",", " , "])
def test_a_slip_of_the_comma_opens_no_door(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    """Nothing but commas is neither an empty secret that anybody knows nor a list that lets everybody in."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError, match=variable):
        load_settings()


@pytest.mark.parametrize("text", ["good-secret,", ",good-secret", "one,,two"])
def test_an_empty_secret_among_others_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """As it happens while secrets are rotated: everybody would know the second one."""
    monkeypatch.setenv("EXTERNAL_CRM_WEBHOOK_SECRET", text)
    with pytest.raises(SettingsError, match="EXTERNAL_CRM_WEBHOOK_SECRET"):
        load_settings()
