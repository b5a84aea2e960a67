"""`alerts`: what is wrong, and a message on trial."""

from __future__ import annotations

import pytest

from crm_pipeline import ExternalCrmService
from crm_pipeline.store import alerts, state
from crm_pipeline.store.engine import writing
from crm_pipeline_tests.cli.conftest import Cli
from crm_pipeline_tests.orchestration.outage import listening


@pytest.mark.usefixtures("crm")
def test_what_is_wrong_is_listed(cli: Cli) -> None:
    """Since when, how bad, and who knows; nothing is an answer too."""
    never = "alert_sensor has never looked: runs of Dagster were not judged.\n"
    assert cli("alerts", "list").out == f"Nothing is wrong.\n{never}"
    with ExternalCrmService() as service, writing(service.engine) as tx:
        now = service.evidence(look=False).now
        facts = {"key": "step pull", "grave": True, "text": "pull fails: no answer", "figures": {"n": 1}}
        alerts.begin(tx, "default", now, **facts)
    (found,) = cli("alerts", "list", "--json").json["alerts"]
    assert (found["key"], found["severity"], found["told"]) == ("step pull", "error", [])
    assert found["figures"] == {"n": 1}
    assert "pull fails: no answer" in cli("alerts", "list").out


@pytest.mark.usefixtures("crm")
def test_what_no_sensor_has_noted_is_listed_all_the_same(cli: Cli) -> None:
    """Rules and steps are judged at once; when the sensor last looked is told."""
    with ExternalCrmService() as service, writing(service.engine) as tx:
        now = service.evidence(look=False).now
        row = state.start_run(tx, "default", "pull", "run", now)
        state.finish_run(tx, row, now, state="failed", error="no answer")
        alerts.look(tx, "default", now)
    answer = cli("alerts", "list", "--json").json
    assert [(each["key"], each["severity"], each["openedAt"]) for each in answer["alerts"]] == [
        ("step pull", "error", None),
    ]
    assert answer["lookedAt"] is not None
    shown = cli("alerts", "list").out
    assert "pull fails: no answer" in shown
    assert f"alert_sensor last looked at {answer['lookedAt']}." in shown


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
