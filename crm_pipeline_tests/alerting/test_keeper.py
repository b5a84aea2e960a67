"""Incidents: told once, whoever looks how often, and once more when they are over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from crm_pipeline.alerting.channels import Channel, DeliveryError
from crm_pipeline.alerting.conditions import Condition
from crm_pipeline.alerting.keeper import GIVEN_UP, PATIENCE, QUIET, note, our_runs, tell
from crm_pipeline.alerting.messages import Message, trial
from crm_pipeline.store import alerts, state
from crm_pipeline.store.engine import reading, writing

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
AWAY = Condition("step pull", grave=True, text="pull fails: the CRM answered 503", figures={})
REJECTS = Condition(
    "check rejects", grave=False, text="the check 'rejects' fails", figures={"pull_rejects": 2}
)


@dataclass
class Listener:
    """A channel that keeps what it hears, unless it is out of order."""

    heard: list[str] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    works: bool = True

    def __call__(self, message: Message) -> None:
        """Take a message."""
        if not self.works:
            raise DeliveryError("it answered 500")
        self.heard += message.text.splitlines()[1:]
        self.documents += message.document["incidents"]


@dataclass
class Watch:
    """Somebody who looks each minute."""

    engine: Engine
    channels: Mapping[str, Channel]
    now: datetime = NOON

    def look(self, *found: Condition, minutes: int = 1) -> dict[str, str]:
        """Look so many times; what failed at the last."""
        failed: dict[str, str] = {}
        for _ in range(minutes):
            note(self.engine, "default", found, list(self.channels), self.now)
            failed = tell(self.engine, "default", self.channels, lambda: self.now)
            self.now += MINUTE
        return failed

    @property
    def open(self) -> Sequence[str]:
        """Keys of what is wrong."""
        with reading(self.engine) as tx:
            return [incident.key for incident in alerts.open_ones(tx, "default")]


@pytest.fixture
def chat() -> Listener:
    """One channel."""
    return Listener()


@pytest.fixture
def watch(engine: Engine, chat: Listener) -> Watch:
    """Somebody who tells it."""
    return Watch(engine, {"chat": chat})


def test_an_incident_is_told_once_and_its_end_once(watch: Watch, chat: Listener) -> None:
    """Three days of one fault are two lines."""
    for _ in range(3 * 24):
        watch.look(AWAY)
        watch.now += 59 * MINUTE
    assert chat.heard == ["ERROR: pull fails: the CRM answered 503"]
    watch.look(minutes=6)
    assert chat.heard[1:] == ["RECOVERED: step pull, after 71 h 0 min"]
    assert watch.open == []
    watch.look(AWAY, minutes=5)
    assert len(chat.heard) == 3


def test_what_mends_itself_at_once_is_not_told(watch: Watch, chat: Listener) -> None:
    """A run that failed and the next one that did not."""
    watch.look(AWAY, minutes=int(PATIENCE / MINUTE))
    watch.look(minutes=10)
    assert (chat.heard, watch.open) == ([], [])


def test_what_comes_and_goes_is_one_incident(watch: Watch, chat: Listener) -> None:
    """Minutes without it are not its end."""
    watch.look(AWAY, minutes=5)
    for _ in range(10):
        watch.look(minutes=int(QUIET / MINUTE) - 1)
        watch.look(AWAY)
    assert len(chat.heard) == 1
    watch.look(minutes=int(QUIET / MINUTE) + 1)
    assert len(chat.heard) == 2


def test_what_comes_and_goes_each_minute_is_told(watch: Watch, chat: Listener) -> None:
    """It is never there for long, and wrong all the same."""
    for _ in range(10):
        watch.look(AWAY)
        watch.look()
    assert len(chat.heard) == 1


def test_a_channel_that_is_set_later_hears_of_what_is_wrong(engine: Engine, chat: Listener) -> None:
    """Also where nobody was set at all before; the others hear nothing twice, and its end both."""
    watch = Watch(engine, {})
    watch.look(AWAY, minutes=30)
    watch.channels = {"chat": chat}
    watch.look(AWAY, minutes=2)
    mail = Listener(works=False)
    watch.channels = {"chat": chat, "mail": mail}
    watch.look(AWAY, minutes=30)
    mail.works = True
    watch.look(AWAY, minutes=40)
    assert chat.heard == mail.heard == ["ERROR: pull fails: the CRM answered 503"]
    watch.look(minutes=6)
    assert (len(chat.heard), len(mail.heard)) == (2, 2)


def test_a_channel_that_is_taken_away_and_set_again_hears_of_it(engine: Engine) -> None:
    """What it was never told is not counted as told."""
    mail = Listener(works=False)
    watch = Watch(engine, {"mail": mail})
    watch.look(AWAY, minutes=4)
    watch.channels = {}
    watch.look(AWAY, minutes=10)
    mail.works = True
    watch.channels = {"mail": mail}
    watch.look(AWAY, minutes=2)
    assert len(mail.heard) == 1


def test_a_warning_that_becomes_an_error_is_told_once_more(engine: Engine, chat: Listener) -> None:
    """However often it gets better and worse; who hears of it only then is told as of any error."""
    mail = Listener(works=False)
    watch = Watch(engine, {"chat": chat, "mail": mail})
    watch.look(REJECTS, minutes=10)
    for _ in range(3):
        watch.look(replace(REJECTS, grave=True), minutes=2)
        watch.look(REJECTS, minutes=2)
    mail.works = True
    watch.look(REJECTS, minutes=30)
    watch.look(minutes=6)
    what = "the check 'rejects' fails (pull_rejects 2)"
    over = "RECOVERED: check rejects, after 51 min"
    assert chat.heard == [f"WARNING: {what}", f"ERROR: still wrong, now an error: {what}", over]
    assert mail.heard == [f"ERROR: {what}", over]
    assert len({each["id"] for each in chat.documents}) == 1


def test_several_at_once_are_one_message(watch: Watch, chat: Listener) -> None:
    """The worst first, with figures, and a document for programs."""
    watch.look(REJECTS, AWAY, minutes=5)
    assert chat.heard == [
        "ERROR: pull fails: the CRM answered 503",
        "WARNING: the check 'rejects' fails (pull_rejects 2)",
    ]
    assert [(each["key"], each["state"], each["severity"]) for each in chat.documents] == [
        ("step pull", "open", "error"),
        ("check rejects", "open", "warning"),
    ]


def test_two_processes_tell_once(engine: Engine, chat: Listener) -> None:
    """Two that look at the same instant open one incident and send one message."""
    watches = [Watch(engine, {"chat": chat}) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(6):
            list(pool.map(lambda each: each.look(AWAY), watches))
    assert len(chat.heard) == 1


def test_a_channel_that_is_out_of_order_hears_later_and_holds_nobody_up(engine: Engine) -> None:
    """The others hear at once; it hears once, with growing gaps between the tries."""
    chat, mail = Listener(), Listener(works=False)
    watch = Watch(engine, {"chat": chat, "mail": mail})
    assert watch.look(AWAY, minutes=3) == {"mail": "it answered 500"}
    watch.look(AWAY, minutes=10)
    mail.works = True
    assert (len(chat.heard), len(mail.heard)) == (1, 0)
    watch.look(AWAY, minutes=10)
    assert (len(chat.heard), len(mail.heard)) == (1, 1)


def test_who_never_heard_of_it_is_not_told_that_it_is_over(engine: Engine) -> None:
    """A recovery alone would only puzzle."""
    chat, mail = Listener(), Listener(works=False)
    watch = Watch(engine, {"chat": chat, "mail": mail})
    watch.look(AWAY, minutes=10)
    watch.look(minutes=6)
    mail.works = True
    watch.look(minutes=10)
    assert [line.split(":")[0] for line in chat.heard] == ["ERROR", "RECOVERED"]
    assert mail.heard == []


def test_what_could_not_be_told_for_days_is_let_go(engine: Engine) -> None:
    """Nobody tries for ever."""
    mail = Listener(works=False)
    watch = Watch(engine, {"mail": mail})
    watch.look(AWAY, minutes=3)
    watch.now += GIVEN_UP
    for _ in range(10):
        watch.look(AWAY)
        watch.now += timedelta(hours=1)
    mail.works = True
    watch.look(AWAY, minutes=5)
    assert mail.heard == []


def test_a_process_that_died_while_telling_is_followed_by_another(engine: Engine, chat: Listener) -> None:
    """What was claimed and never noted is told after some minutes."""
    watch = Watch(engine, {"chat": chat})
    for _ in range(2):
        note(engine, "default", [AWAY], ["chat"], watch.now)
        watch.now += PATIENCE
    with writing(engine) as tx:
        assert alerts.claim(tx, "default", watch.now, 3 * MINUTE)
    watch.look(AWAY)
    assert chat.heard == []
    watch.look(AWAY, minutes=4)
    assert len(chat.heard) == 1


def test_without_channels_incidents_are_noted_all_the_same(engine: Engine) -> None:
    """They show in the status and in the figures."""
    watch = Watch(engine, {})
    watch.look(AWAY, minutes=5)
    assert watch.open == ["step pull"]
    watch.look(minutes=6)
    assert watch.open == []


def test_a_step_fails_until_it_has_succeeded_again(engine: Engine) -> None:
    """The newest end of each step counts; one in progress is no end. What reconcile left is told, too."""
    ends = [
        ("pull", "done"),
        ("pull", "failed"),
        ("apply", "failed"),
        ("apply", "done"),
        ("reconcile", "done"),
    ]
    with writing(engine) as tx:
        for second, (step, end) in enumerate(ends):
            at = NOON + timedelta(seconds=second)
            row = state.start_run(tx, "default", step, "run", at)
            counts = {"differing": 5, "mended": 2, "for_people": 1}
            state.finish_run(tx, row, at, state=end, error="why" if end == "failed" else None, counts=counts)
        state.start_run(tx, "default", "pull", "run", NOON + MINUTE)
        runs = our_runs(tx, "default")
    assert (runs.failing_steps, runs.left_by_reconcile) == ({"pull": "why"}, 2)


def test_looking_is_remembered(watch: Watch) -> None:
    """Since when, and when last: so that silence is not taken for health."""
    with reading(watch.engine) as tx:
        assert alerts.watch(tx, "default") is None
    watch.look(minutes=3)
    with reading(watch.engine) as tx:
        assert alerts.watch(tx, "default") == alerts.Watch(NOON, NOON + 2 * MINUTE)


def test_a_trial_names_no_incident() -> None:
    """Programs that read the document open nothing for it."""
    assert trial("default").document["incidents"] == []
