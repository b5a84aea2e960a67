"""`doctor` and `mapping preview`: what is wrong is named, with what to do, before anything is synced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from crm_pipeline import ExternalCrmService, instants
from crm_pipeline.simulators import hubspot_rules
from crm_pipeline.simulators.generic import GenericCrm
from crm_pipeline.simulators.serve import running
from crm_pipeline.simulators.vendor import VendorCrm
from crm_pipeline.simulators.vendors import SIMULATIONS
from crm_pipeline_tests.cli.conftest import Cli


@pytest.fixture(params=["hubspot", "salesforce", "zoho"])
def account(request: pytest.FixtureRequest) -> Iterator[VendorCrm]:
    """A vendor's account, to which the .env of the working folder points."""
    simulation = SIMULATIONS[request.param]
    crm = VendorCrm.seeded(simulation.vendor, 20)
    with running(simulation.app(crm)) as url:
        lines = (
            "EXTERNAL_CRM_ENABLED=true",
            f"EXTERNAL_CRM_TYPE={request.param}",
            f"EXTERNAL_CRM_API_URL={url}",
            f"EXTERNAL_CRM_API_KEY={crm.options.api_key}",
        )
        Path(".env").write_text("\n".join(lines))
        yield crm


def findings(cli: Cli, code: int) -> dict[str, tuple[str, str]]:
    """Grade and text of each subject."""
    answer = cli("--json", "doctor")
    assert answer.code == code, answer.out + answer.err
    return {each["subject"]: (each["grade"], each["text"]) for each in answer.json["findings"]}


def test_a_right_account_has_nothing_bad(account: VendorCrm, cli: Cli) -> None:
    """With the fields of the vendor's page everything is good."""
    cli("db", "upgrade")
    found = findings(cli, 0)
    assert {grade for grade, _ in found.values()} == {"good"}
    assert found["records"][1] == "20 of 20 on the first page become contacts"
    assert account.requests <= 3
    unique = account.vendor.unique
    assert {"fields", "writing", unique} <= found.keys()
    assert "unique" in found[unique][1]


def test_credentials_that_may_only_read_are_told(account: VendorCrm, cli: Cli) -> None:
    """Before the first push: what is refused, and which permission is missing."""
    object.__setattr__(account.options, "read_only", True)
    before = account.stats()["contacts"]
    found = findings(cli, 1)
    assert found["writing"][0] == "bad"
    assert any(word in found["writing"][1] for word in ("contacts.write", "SCOPE", "not createable"))
    with Path(".env").open("a") as env:
        env.write("\nEXTERNAL_CRM_PUSH=off\n")
    assert "writing" not in findings(cli, 0)
    assert account.stats()["contacts"] == before


def test_what_does_not_fit_is_named(account: VendorCrm, cli: Cli) -> None:
    """A missing field, one of another type, an unknown option, a property that is not unique."""
    cli("db", "upgrade")
    names = account.vendor.names
    inner = "properties." if account.vendor is hubspot_rules.VENDOR else ""
    fields = {
        "event": {"names": [f"{inner}{names['company']}_2"], "write": f"{inner}{names['company']}_2"},
        "capacity": {"names": [inner + names["meeting_date"]]},
        "deal_status": {"names": [inner + names["task_status"]]},
    }
    file = {"fields": fields, "writing": {"upsert_by": names["company"]}}
    Path("connection.yaml").write_text(json.dumps(file))
    with Path(".env").open("a") as env:
        env.write("\nEXTERNAL_CRM_CONFIG=connection.yaml\n")
    found = findings(cli, 1)
    if "event" not in found:  # Salesforce refuses the whole query for one unknown field
        assert found["CRM"][0] == "bad"
        return
    assert "the CRM has no" in found["event"][1]
    assert "is a time, and ours is integer" in found["capacity"][1]
    assert "has no option prospect" in found["dealStatus"][1]
    assert "is not unique" in found[names["company"]][1]


def test_a_wrong_key_is_told_with_its_cure(account: VendorCrm, cli: Cli) -> None:
    """The CRM does not let us in: that is all there is to say, and what to do."""
    del account
    cli("db", "upgrade")
    with Path(".env").open("a") as env:
        env.write("\nEXTERNAL_CRM_API_KEY=wrong-key\n")
    answer = cli("doctor")
    assert answer.code == 1
    assert "EXTERNAL_CRM_API_KEY" in answer.out
    assert "wrong-key" not in answer.out


def test_zohos_channel_is_told(cli: Cli) -> None:
    """None yet, then until when; ``status`` tells it, too."""
    simulation = SIMULATIONS["zoho"]
    crm = VendorCrm.seeded(simulation.vendor, 3)
    Path("connection.yaml").write_text(
        "webhook: {public_url: https://hooks.example.com/api/external/webhook}\n"
    )
    with running(simulation.app(crm)) as url:
        lines = (
            "EXTERNAL_CRM_ENABLED=true",
            "EXTERNAL_CRM_TYPE=zoho",
            "EXTERNAL_CRM_CONFIG=connection.yaml",
            f"EXTERNAL_CRM_API_URL={url}",
            f"EXTERNAL_CRM_API_KEY={crm.options.api_key}",
        )
        Path(".env").write_text("\n".join(lines))
        assert findings(cli, 1)["channel"][0] == "bad"
        with Path(".env").open("a") as env:
            env.write("\nEXTERNAL_CRM_WEBHOOK_SECRET=a-long-secret\n")
        assert findings(cli, 0)["channel"][0] == "doubtful"
        assert cli("--json", "status").json["channelEnds"] is None
        with ExternalCrmService() as service:
            ends = service.renew_watch()
        assert findings(cli, 0)["channel"] == (
            "good",
            f"Zoho tells of changes until {instants.to_text(ends)}",
        )
        assert cli("--json", "status").json["channelEnds"] == instants.to_text(ends)


def test_calls_nobody_counts_are_not_told_as_none(crm: GenericCrm, cli: Cli) -> None:
    """Without a budget there is no figure, which is something else than zero."""
    del crm
    cli("pull")
    assert cli("--json", "status").json["apiCallsToday"] is None


def test_a_generic_crm_is_judged_by_its_records(crm: GenericCrm, cli: Cli) -> None:
    """What no record holds is doubtful, and no reason to fail."""
    del crm
    found = findings(cli, 0)
    assert found["database"][0] == "good"
    assert found["cpSecond"][0] == "doubtful"


def test_a_preview_says_why(crm: GenericCrm, cli: Cli) -> None:
    """Each field with where it comes from; a wrong one rejects, with exit code 1."""
    record = {
        "phone": "0810-0000-001",
        "name": "Uji",
        "ticket_price": "-5",
        "status": "closed",
        "notes": None,
    }
    Path("record.json").write_text(json.dumps(record))
    answer = cli("--json", "mapping", "preview", "record.json")
    told = {each["field"]: each["reason"] for each in answer.json["fields"]}
    assert answer.code == 1
    assert "ticketPrice" in answer.json["rejected"]
    assert told["id"] == told["dealStatus"] == "brought into our form"
    assert told["notes"] == "null: clears the field"
    assert told["event"].startswith("not mentioned")
    assert told["ticketPrice"].startswith("rejected")
    known = next(iter(crm.records))
    answer = cli("--json", "mapping", "preview", "--id", known)
    assert (answer.code, answer.json["contact"]["id"]) == (0, crm.records[known]["phone"])


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"ticket_price": ' + b"9" * 5_000 + b"}", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"[{}]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"null", "not a JSON object"),
    ],
)
def test_odd_previews_are_told_clearly(crm: GenericCrm, cli: Cli, content: bytes, said: str) -> None:
    """Whatever the file holds: one clear line, and an object for machines."""
    del crm
    Path("record.json").write_bytes(content)
    answer = cli("--json", "mapping", "preview", "record.json")
    assert answer.code == 1
    assert said in answer.err
    assert answer.json == {"error": answer.err.strip()}


def test_a_preview_needs_a_record(crm: GenericCrm, cli: Cli) -> None:
    """Wrong usage and unreadable records are told apart."""
    del crm
    Path("record.json").write_text("{no json")
    assert cli("mapping", "preview").code == 2
    assert "not JSON" in cli("mapping", "preview", "record.json").err
    assert "no record" in cli("mapping", "preview", "--id", "nobody").err
