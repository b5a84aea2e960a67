"""Questions that go one at a time are under way together, and nothing else changes."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline.connectors.base import CrmRefusedError
from crm_pipeline.connectors.together import together
from crm_pipeline_tests.connectors.conftest import Connect, Serve
from crm_pipeline_tests.connectors.servers import Reply, Seen, reply

_PATIENCE = 20.0
_LOOKUP = {"lookup": {"param": "phone"}}


class _Crm:
    """Answers only when so many are asked for at once; notes how many there are."""

    def __init__(self, together: int) -> None:
        self._meeting, self._lock = threading.Barrier(together), threading.Lock()
        self._inside = self.most = 0
        self.asked: list[str] = []

    def __call__(self, seen: Seen) -> Reply:
        with self._lock:
            name = seen.query.get("phone", seen.path.rpartition("/")[2])
            self.asked.append(name)
            self._inside += 1
            self.most = max(self.most, self._inside)
        self._meeting.wait(_PATIENCE)
        with self._lock:
            self._inside -= 1
        if name.startswith("gone"):
            return reply(404)
        return reply(200, [{"id": name}] if "phone" in seen.query else {"id": name})


def test_single_records_are_read_together(serve: Serve, connector: Connect) -> None:
    """As many as may be in flight, each once; in the order of the ids, without those that are gone."""
    crm = _Crm(together=3)
    made = connector(serve(crm).url, limits={"in_flight": 3})
    ids = ["7", "gone1", "3", "9", "1", "7", "gone2", "3"]
    assert [record.external_id for record in made.read(ids)] == ["7", "3", "9", "1"]
    assert sorted(crm.asked) == ["1", "3", "7", "9", "gone1", "gone2"]
    assert (made.calls, crm.most) == (6, 3)


def test_one_in_flight_is_one_after_another(serve: Serve, connector: Connect) -> None:
    """In the order of the questions."""
    crm = _Crm(together=1)
    made = connector(serve(crm).url, limits={"in_flight": 1})
    assert len(made.read(["3", "1", "2"])) == 3
    assert (crm.asked, crm.most) == (["3", "1", "2"], 1)


def test_values_are_looked_up_together(serve: Serve, connector: Connect) -> None:
    """Each answer is that of its own question."""
    crm = _Crm(together=4)
    made = connector(serve(crm).url, limits={"in_flight": 4}, writing=_LOOKUP)
    values = [str(each) for each in range(12)]
    found = together(made.find, values, 4)
    assert [[record.external_id for record in records or ()] for records in found] == [
        [each] for each in values
    ]
    assert (sorted(crm.asked), crm.most, made.calls) == (sorted(values), 4, 12)


def test_after_a_failure_nothing_more_is_sent(serve: Serve, connector: Connect) -> None:
    """Neither the questions that are left, nor one that would be asked again; the error is as ever."""
    failed, asked = threading.Event(), threading.Event()

    def answer(seen: Seen) -> Reply:
        if seen.path.endswith("/busy"):
            asked.set()
            failed.wait(_PATIENCE)
            return reply(503)
        asked.wait(_PATIENCE)
        return reply(400)

    server = serve(answer)
    made = connector(server.url, limits={"in_flight": 2, "retries": 3})
    with pytest.raises(CrmRefusedError, match="refuses the request"):
        made.read(["busy", "wrong", "3", "4", "5"])
    failed.set()
    for thread in threading.enumerate():
        if thread.name == "call":
            thread.join(_PATIENCE)
    assert sorted(seen.path for seen in server.seen) == ["/busy", "/wrong"]


@given(st.lists(st.integers()), st.integers(1, 16))
def test_the_answers_are_those_of_asking_in_turn(questions: Sequence[int], most: int) -> None:
    """However many are under way."""
    assert together(lambda each: -each, questions, most) == [-each for each in questions]
