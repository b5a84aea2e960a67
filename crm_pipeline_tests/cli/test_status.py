"""`status`: how the sync stands and what is in force, without secrets."""

from __future__ import annotations

import pytest

from crm_pipeline.settings import Settings
from crm_pipeline_tests.cli.conftest import Cli


def test_status_works_while_switched_off(cli: Cli) -> None:
    """Nothing configured: it says so and ends with 0."""
    document = cli("status", "--json").json
    assert (document["enabled"], document["mode"], document["configured"]) == (False, "webhook", False)


@pytest.mark.usefixtures("crm")
def test_status_knows_the_last_run(cli: Cli) -> None:
    """After a sync: contacts, times, and each step's figures."""
    cli("sync")
    document = cli("status", "--json").json
    assert (document["enabled"], document["contacts"], document["rejected"]) == (True, 30, 0)
    assert document["runs"]["pull"]["state"] == "done"
    assert document["lastSuccess"].endswith("Z")


@pytest.mark.usefixtures("crm")
def test_people_see_names_and_values(cli: Cli) -> None:
    """The same in lines."""
    lines = dict(line.split(maxsplit=1) for line in cli("status").out.splitlines() if len(line.split()) > 1)
    assert lines["enabled"].strip() == "yes"
    assert lines["EXTERNAL_CRM_SYNC_INTERVAL"].strip() == "30"
    assert lines["lastSuccess"].strip() == "-"
    cli("sync")
    after = [line.split() for line in cli("status").out.splitlines()]
    assert [line[:4] for line in after if "done" in line] == [
        ["pull", "done", "30", "30"],
        ["apply", "done", "30", "30"],
        ["push", "done", "0", "0"],
    ]


@pytest.mark.usefixtures("crm")
def test_no_secret_is_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, webhook secret and a password in the database's URL: only that they are set."""
    secret = "s3cr3t-value"
    for name in ("EXTERNAL_CRM_API_KEY", "EXTERNAL_CRM_WEBHOOK_SECRET", "CRM_API_KEY"):
        monkeypatch.setenv(name, secret)
    document, text = cli("status", "--json"), cli("status")
    assert secret not in document.out + text.out
    assert set(document.json["settings"]) == {name.upper() for name in Settings.model_fields}
    assert document.json["settings"]["CRM_API_KEY"] == "set"
