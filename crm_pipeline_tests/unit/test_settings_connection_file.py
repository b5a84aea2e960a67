"""The connection file: what it may hold, and mistakes told with file, line and key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crm_pipeline.connection import Connection
from crm_pipeline.contact import BUILT_IN, RESERVED
from crm_pipeline.settings import SettingsError, load_settings
from crm_pipeline.store.tables import contacts

SECRET = "s3cr3t-value"


@pytest.fixture(autouse=True)
def _named_by_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here writes, or does not write, this one file."""
    monkeypatch.setenv("EXTERNAL_CRM_CONFIG", "crm.yaml")


def connection(text: str) -> Connection:
    """Write the file and resolve it."""
    Path("crm.yaml").write_text(text, encoding="utf-8")
    return load_settings().connection


def problems(text: str) -> tuple[str, ...]:
    """Write a wrong file and return what is said of it."""
    with pytest.raises(SettingsError) as caught:
        connection(text)
    return caught.value.problems


def test_a_file_describes_a_crm() -> None:
    """Values arrive typed, in every section."""
    made = connection(
        "base_url: https://crm.example/api\n"
        "listing: {page_size: 50, modified_since: {param: since, zone: Asia/Jakarta}}\n"
        "fields:\n  city: {type: text, names: [city, address.city]}\n"
    )
    assert made.base_url == "https://crm.example/api"
    assert made.listing.modified_since is not None
    assert made.listing.modified_since.zone == "Asia/Jakarta"
    assert made.fields["city"].names == ("city", "address.city")


def test_an_empty_file_is_all_defaults() -> None:
    """Comments only: nothing is described, nothing is wrong."""
    assert connection("# nothing yet\n") == Connection()


def test_variables_win_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set replaces the file's value; one that is not leaves it."""
    text = "base_url: https://old.example/\ntimezone: Asia/Jakarta\ndefault_region: SG\ntype: zoho\n"
    assert connection(text).timezone == "Asia/Jakarta"
    monkeypatch.setenv("EXTERNAL_CRM_API_URL", "https://new.example/")
    monkeypatch.setenv("EXTERNAL_CRM_TIMEZONE", "UTC")
    monkeypatch.setenv("EXTERNAL_CRM_TYPE", "generic")
    made = connection(text)
    assert (made.base_url, made.timezone, made.default_region, made.type) == (
        "https://new.example/",
        "UTC",
        "SG",
        "generic",
    )


def test_a_url_in_the_file_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enabled needs a URL, from the variable or from the file; without either the error names both."""
    monkeypatch.setenv("EXTERNAL_CRM_ENABLED", "true")
    assert connection("base_url: https://crm.example/\n").base_url == "https://crm.example/"
    assert problems("name: mine\n") == (
        "EXTERNAL_CRM_API_URL (or base_url in crm.yaml) is needed while EXTERNAL_CRM_ENABLED is true",
    )


def test_values_come_from_the_environment_or_the_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """``${NAME}`` is replaced after parsing, so that a value cannot change the file's shape."""
    Path(".env").write_text("FROM_FILE=from-file\nBOTH=from-file\n")
    monkeypatch.setenv("BOTH", "from environment")
    monkeypatch.setenv("NASTY", "x}\nname: evil")
    made = connection('headers: {A: "${FROM_FILE}", B: "v ${BOTH}!", C: "${NASTY}"}\n')
    assert made.headers == {"A": "from-file", "B": "v from environment!", "C": "x}\nname: evil"}
    assert "FROM_FILE" not in os.environ


def test_plain_words_stay_words() -> None:
    """Norway is not false, 12:30 is not 750, a date is not a date object."""
    made = connection(
        "default_region: NO\nlisting:\n  params: {a: 12:30, b: 2025-01-02, c: yes, d: 010, e: 0x1f, f: 1_0}\n"
    )
    assert made.default_region == "NO"
    assert made.listing.params == {
        "a": "12:30",
        "b": "2025-01-02",
        "c": "yes",
        "d": "010",
        "e": "0x1f",
        "f": "1_0",
    }


WRONG: list[tuple[str, str]] = [
    ("nmae: x\n", "crm.yaml:1: nmae: unknown key"),
    ("auth:\n  kind: none\n  secret: x\n", "crm.yaml:3: auth.secret: unknown key"),
    (
        "auth:\n  kind: bearr\n",
        "crm.yaml:2: auth.kind: input should be 'none', 'bearer', 'header', 'basic', 'query' or 'oauth2'",
    ),
    (
        "\n\nlisting:\n  page_size: 0\n",
        "crm.yaml:4: listing.page_size: input should be greater than or equal to 1",
    ),
    ("listing:\n  modified_since: {zone: UTC}\n", "crm.yaml:2: listing.modified_since.param: is required"),
    ("name: a\nname: b\n", "crm.yaml:2: name: is given twice"),
    ("auth: {kind: none,\n  kind: none}\n", "crm.yaml:2: auth.kind: is given twice"),
    ("headers: &h {A: b}\nrecords: *h\n", "crm.yaml:1: records: aliases (*name) are not allowed"),
    ("name: !!python/name:os.system x\n", "crm.yaml:1: name: YAML tags (!name) are not allowed"),
    ("headers: {? [a] : b}\n", "crm.yaml:1: headers: a key must be plain text"),
    ("name: x\nheaders:\n  A: ${NOT_THERE}\n", "crm.yaml:3: headers.A: the environment has no NOT_THERE"),
    ("headers:\n  A: ${A-B}\n", "crm.yaml:2: headers.A: a value from the environment is written ${NAME}"),
    ("- a\n", "crm.yaml:1: must hold keys and values"),
    ("base_url: http://crm.example/\n", "crm.yaml:1: base_url: must be an absolute https URL"),
    ('base_url: ""\n', "crm.yaml:1: base_url: must be an absolute https URL"),
    ("timezone: Mars/Olympus\n", "crm.yaml:1: timezone: must be a time zone name"),
    ("default_region: ZZ\n", "crm.yaml:1: default_region: must be a two-letter country code"),
    (
        "name: x\nfields:\n  city: {names: city}\n",
        "crm.yaml:3: fields.city: a field of your own needs 'type'",
    ),
    ("records:\n  id: [a, {b: c}]\n", "crm.yaml:2: records.id.1: input should be a valid string"),
    ("records:\n  id: 1\n", "crm.yaml:2: records.id: input should be a list"),
    ("auth: bearer\n", "crm.yaml:1: auth: input should be a mapping of keys to values"),
    ("name: [a\n", "crm.yaml:2: not valid YAML"),
    ("name: a\n---\nname: b\n", "crm.yaml:2: not valid YAML"),
    ("name: 'x\n", "crm.yaml:2: not valid YAML"),
    ("[" * 100_000, "crm.yaml: not valid YAML"),
    ("#" * 1024 * 1024 + "#", "crm.yaml: larger than 1048576 bytes"),
]


@pytest.mark.parametrize("text,expected", WRONG, ids=[expected[:60] for _, expected in WRONG])
def test_a_mistake_is_told_with_file_line_and_key(text: str, expected: str) -> None:
    """One line, where to look and what is wrong."""
    (problem,) = problems(text)
    assert problem.startswith(expected)


def test_all_mistakes_of_a_file_come_at_once() -> None:
    """Mending a file takes one round."""
    assert len(problems("nmae: x\nauth: {kind: x}\nlisting: {page_size: 0}\n")) == 3


def test_a_bomb_of_aliases_is_refused_without_being_unfolded() -> None:
    """Ten levels of ten would be ten thousand million strings."""
    levels = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 11)]
    assert all("aliases" in problem for problem in problems("\n".join(levels) + "\n"))


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Missing, a folder, not text: said with its path."""
    with pytest.raises(SettingsError, match=r"crm\.yaml: cannot be read"):
        load_settings()
    (tmp_path / "crm.yaml").mkdir()
    with pytest.raises(SettingsError, match=r"crm\.yaml: cannot be read"):
        load_settings()
    (tmp_path / "crm.yaml").rmdir()
    (tmp_path / "crm.yaml").write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(SettingsError, match="not UTF-8 text"):
        load_settings()


@pytest.mark.parametrize(
    "text",
    [
        f"base_url: https://user:{SECRET}@crm.example/\n",
        f"auth: {{kind: {SECRET}}}\n",
        f"limits: {{retries: {SECRET}}}\n",
        "auth: {kind: '${TOKEN}'}\n",
        f"name: {SECRET} {{\n",
        f"headers: {{A: !{SECRET} x}}\n",
        f'name: "\\q{SECRET}"\n',
        f"headers: {{A: *{SECRET}}}\n",
    ],
)
def test_no_mistake_repeats_a_value(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Secrets end up in this file by mistake; an error must not carry them into a log."""
    monkeypatch.setenv("TOKEN", SECRET)
    assert SECRET not in "\n".join(problems(text))


def test_a_field_of_your_own_takes_no_column_of_the_table() -> None:
    """What the pipeline keeps in a contact's row is nobody's field, and no such column is forgotten."""
    columns = set(contacts.c.keys()) - set(BUILT_IN)
    assert columns == RESERVED
    for column in columns:
        (problem,) = problems(f"fields:\n  {column}: {{type: text, names: [x]}}\n")
        assert f"fields.{column}: is a column of the contact table that the pipeline keeps" in problem


def test_a_rule_selects_values_that_exist() -> None:
    """A choice that is none would select nothing, and nobody would know why."""
    (problem,) = problems("select: {inward: {deal_status: [dael]}}\n")
    assert "select.inward.deal_status: 'dael' is not one of the field's choices" in problem


@pytest.mark.parametrize(
    "text,key",
    [
        ("writing: {update: {method: PATCH, path: /contacts}}\n", "writing: update.path: must hold {id}"),
        ("writing: {read: {method: GET, path: /contacts}}\n", "writing: read.path: must hold {id}"),
        ("auth: {kind: header, template: 'Token {apikey}'}\n", "auth: template: must hold {api_key}"),
        ("listing: {modified_since: {param: s, template: now}}\n", "template: must hold {time}"),
        ("writing: {lookup: {param: q, template: all}}\n", "template: must hold {value}"),
    ],
)
def test_a_template_has_a_place_for_what_goes_into_it(text: str, key: str) -> None:
    """Without one a change would go to all records, or the words instead of the key."""
    (problem,) = problems(text)
    assert key.rpartition(": ")[2] in problem


@pytest.mark.parametrize(
    "text, said",
    [
        ("writing: {update: {method: PATCH, path: '/{ID}'}}", "writing.update.path: may hold {id}"),
        ("writing: {update: {method: PATCH, path: '/{id}/{x}'}}", "writing.update.path: may hold {id}"),
        ("listing: {path: '/list/{id}'}", "listing.path: must not hold a place"),
        ("writing: {batch_update: {path: '/{id}'}}", "writing.batch_update.path: must not hold a place"),
        ("writing: {time_format: '%Y-%Q'}", "writing.time_format: must be 'iso' or a strftime pattern"),
        (
            "listing: {modified_since: {param: since, format: isoformat}}",
            "listing.modified_since.format: must",
        ),
        ("records: {path: a..b}", "records.path: must be names joined by single dots"),
        ("records: {id: .a}", "records.id: must be names joined by single dots"),
        ("fields: {nama: {names: ['a[b=c.d']}}", "fields.nama.names.0: must be names joined by single dots"),
        ("headers: {'X Y': v}", "headers.X Y: must be the name of an HTTP header"),
        ("auth: {kind: header, header: 'X Y'}", "auth.header: must be the name of an HTTP header"),
        ("webhook: {signature: {scheme: standard, value: '{digest}'}}", "webhook.signature.value: goes with"),
        (
            "type: salesforce\nfields: {event: {names: ['Id FROM User--']}}",
            "fields.event: 'Id FROM User--' is not",
        ),
        ("type: salesforce\nwriting: {upsert_by: 'a b'}", "writing.upsert_by: 'a b' is not"),
        ("type: zoho\nfields: {event: {write: 'a b'}}", "fields.event: 'a b' is not"),
        (
            "type: hubspot\nfields: {event: {names: ['properties.a,b']}}",
            "fields.event: 'properties.a,b' is not",
        ),
        *(
            (
                f"type: {vendor}\nfields: {{cp_first: {{names: ['phones[type=work].number']}}}}",
                "fields.cp_first: ",
            )
            for vendor in ("hubspot", "salesforce", "zoho")
        ),
        (
            "fields: {ticketPrice: {names: [x]}}",
            "fields.ticketPrice: goes by its column's name here: ticket_price",
        ),
        (
            "auth: {kind: oauth2, oauth: {grant: refresh_token, client_id: x}}",
            "auth.oauth.refresh_token: is needed",
        ),
        ("auth: {username: ${NAME}}", "inside braces, ${NAME} needs quotes"),
    ],
)
def test_mistakes_are_told_at_the_start(text: str, said: str) -> None:
    """What could only fail later, in the middle of a sync, or in silence."""
    (problem,) = problems(text)
    assert said in problem


@pytest.mark.parametrize(
    "text",
    [
        "records: {path: '@odata.value', id: 'a[]', modified: $modified}",
        "fields: {nama: {names: ['names[kind=given name].text', 'a.0.b', 'x y.z']}}",
        "writing: {time_format: '%d.%m.%Y %H:%M', lookup: {param: 'filters[{\"a\"}]'}}",
        "listing: {modified_since: {param: since, format: epoch_ms}}",
        "listing: {modified_since: {param: since, format: '%F %T'}}",
        "type: salesforce\nfields: {event: {names: [Account.Parent.Name, pkg__Next__c]}}",
        "type: zoho\nfields: {instansi: {names: [Account_Name.name]}}",
        "type: hubspot\nfields: {event: {names: [properties.hs_object_id, id]}}",
        "headers: {X-Api_Version: '2'}",
    ],
)
def test_odd_but_right_files_are_taken(text: str) -> None:
    """Checks that are too strict would keep a CRM out."""
    assert connection(text) is not None
