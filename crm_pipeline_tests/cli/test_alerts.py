"""`alerts`: what is wrong, and a message on trial."""

from __future__ import annotations

import pytest

from crm_pipeline import ExternalCrmService
from crm_pipeline.store import alerts
from crm_pipeline.store.engine import writing
from crm_pipeline_tests.cli.conftest import Cli
from crm_pipeline_tests.orchestration.outage import listening


@pytest.mark.usefixtures("crm")
def test_what_is_wrong_is_listed(cli: Cli) -> None:
    """Since when, how bad, and who knows; nothing is an answer too."""
    assert cli("alerts", "list").out == "Nothing is wrong.\n"
    with ExternalCrmService() as service, writing(service.engine) as tx:
        now = service.evidence(look=False).now
        facts = {"key": "step pull", "grave": True, "text": "pull fails: no answer", "figures": {"n": 1}}
        alerts.begin(tx, "default", now, **facts)
    (found,) = cli("alerts", "list", "--json").json["alerts"]
    assert (found["key"], found["severity"], found["told"]) == ("step pull", "error", [])
    assert found["figures"] == {"n": 1}
    assert "pull fails: no answer" in cli("alerts", "list").out


@pytest.mark.usefixtures("crm")
def test_a_message_on_trial(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """It arrives at every channel, or the command fails and says where not; never with the address."""
    assert cli("alerts", "test").code == 1
    with listening() as (url, lines):
        monkeypatch.setenv("ALERT_SLACK_URL", url)
        assert cli("alerts", "test", "--json").json == {"channels": {"slack": "sent"}}
        assert lines == ["This is a test: alerts of this connection arrive here."]
        monkeypatch.setenv("ALERT_URL", "http://127.0.0.1:9/s3cret")
        answer = cli("alerts", "test")
    assert answer.code == 1
    assert "failed (ConnectionError)" in answer.out
    assert "s3cret" not in answer.out + answer.err
