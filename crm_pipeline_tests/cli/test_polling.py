"""`polling`: a switch that the database keeps."""

from __future__ import annotations

import pytest

from crm_pipeline_tests.cli.conftest import Cli


@pytest.mark.usefixtures("crm")
def test_the_switch_is_set_and_shown(cli: Cli) -> None:
    """`status` shows it; another position is wrong usage."""
    assert cli("polling", "on").out == "Polling is on.\n"
    assert cli("status", "--json").json["polling"] == "active"
    assert cli("polling", "off", "--json").json == {"polling": False}
    assert cli("status", "--json").json["polling"] == "inactive"
    assert cli("polling", "up").code == 2
