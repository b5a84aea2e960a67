"""One call of ``write``: what became of each record so far, and whether going on makes sense."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import orjson

from crm_pipeline.connectors.base import (
    ConnectorError,
    CrmAnswerError,
    CrmRefusedError,
    CrmUnavailableError,
    Json,
    Write,
    WriteResult,
    WriteStatus,
)
from crm_pipeline.connectors.repeats import NotSentError, certainly_not_applied
from crm_pipeline.connectors.session import Answer, Session
from crm_pipeline.connectors.verdicts import status_of

LOST_IN_A_ROW = 3
"""After so many writes without an answer the CRM is taken to hang."""
FORBIDDEN_IN_A_ROW = 2
"""One 403 may be about one record; so many are about us."""
_FORBIDDEN = 403
_REFUSES_US = frozenset({401, 402, 405, 406, 407, 415, 501})
"""Statuses about us or the address, whatever the content."""
_MISSING = frozenset({404, 410})
_AWAY = frozenset({502, 503, 504})
"""Said by a gateway whose CRM does not answer. A 500 may be about one record."""


class Turn:
    """One call of ``write``: results so far, and whether going on makes sense."""

    def __init__(self, writes: Sequence[Write]) -> None:
        self.writes = writes
        self.results: dict[int, WriteResult] = {}
        self._halted = ""
        self._refusal = ""
        self._lost = self._forbidden = 0

    def due(self, places: Sequence[int]) -> bool:
        """Whether these are to be sent; else they have failed for the reason the others did."""
        if self._halted:
            self.settle(places, WriteStatus.FAILED, self._halted)
        return not self._halted

    def settle(self, places: Sequence[int], status: WriteStatus, reason: str) -> None:
        """Give several writes the same result."""
        for place in places:
            self.results[place] = WriteResult(status, self.writes[place].external_id, reason=reason)

    def no_answer(self, places: Sequence[int], error: ConnectorError) -> None:
        """Nothing was sent, or nobody knows."""
        if isinstance(error, NotSentError):
            self._halted = str(error)
            self.settle(places, WriteStatus.FAILED, self._halted)
            return
        self.settle(places, WriteStatus.UNKNOWN, str(error))
        self._count_lost(lost=True)

    def refused(self, places: Sequence[int], error: CrmRefusedError) -> None:
        """Nothing was sent: we are given no credential."""
        self._halted = self._refusal = str(error)
        self.settle(places, WriteStatus.FAILED, self._halted)

    def refuses_us(self, places: Sequence[int], answer: Answer, *, to_an_id: bool) -> bool:
        """Take note of an answer; tell whether it is about us and these writes have failed."""
        status = answer.status
        self._count_lost(lost=status in _AWAY)
        self._forbidden = self._forbidden + 1 if status == _FORBIDDEN else 0
        if certainly_not_applied(status, answer.headers):
            self._halted = f"the CRM cannot take writes now (status {status})"
        elif status in _REFUSES_US or status == _FORBIDDEN or (status in _MISSING and not to_an_id):
            self._refusal = f"the CRM refuses us or the address (status {status})"
            if status != _FORBIDDEN or not to_an_id or self._forbidden >= FORBIDDEN_IN_A_ROW:
                self._halted = self._refusal
        else:
            return False
        self.settle(places, WriteStatus.FAILED, self._refusal or self._halted)
        return True

    def _count_lost(self, *, lost: bool) -> None:
        self._lost = self._lost + 1 if lost else 0
        if self._lost >= LOST_IN_A_ROW:
            self._halted = "not sent: the CRM has stopped answering"

    def finish(self) -> list[WriteResult]:
        """All results in order; or the refusal, where it is all there is."""
        results = [self.results[place] for place in range(len(self.writes))]
        if self._refusal and all(each.status is WriteStatus.FAILED for each in results):
            raise CrmRefusedError(self._refusal)
        return results


Judge = Callable[[Answer, list[int]], "dict[int, WriteResult] | None"]
"""What an answer says of the writes at these places; None where it speaks of the batch as a whole."""


def send_batch(
    session: Session,
    turn: Turn,
    rows: dict[int, Json],
    call: tuple[str, str],
    body: Callable[[list[Json]], Json],
    judge: Judge,
) -> None:
    """Send a vendor's batch; one refused as a whole is cut in two until the guilty rows stand alone.

    Args:
        session: the account's session.
        turn: takes the results.
        rows: what is sent of each write, by its place in the turn.
        call: method and URL.
        body: wraps the rows.
        judge: reads the answer.
    """
    places = list(rows)
    if not places or not turn.due(places):
        return
    answer = _sent(session, turn, places, call, orjson.dumps(body(list(rows.values()))))
    if answer is None:
        return
    results = judge(answer, places)
    status = status_of(answer.status, creating=True)
    if results is not None:
        turn.results.update(results)
        for place in places:
            if place not in results:
                turn.settle([place], WriteStatus.UNKNOWN, "the batch's answer does not speak of the record")
    elif status is WriteStatus.REFUSED and len(places) > 1:
        half = len(places) // 2
        for some in (places[:half], places[half:]):
            send_batch(session, turn, {place: rows[place] for place in some}, call, body, judge)
    elif status is WriteStatus.WRITTEN:
        text = f"the batch's answer (status {answer.status}) does not list one result for each record"
        turn.settle(places, WriteStatus.UNKNOWN, text)
    else:
        turn.settle(places, status, f"the CRM does not take it ({answer.status})")


def _sent(
    session: Session, turn: Turn, places: list[int], call: tuple[str, str], body: bytes
) -> Answer | None:
    """Send; None when there is no answer to judge and the writes are settled."""
    try:
        answer = session.send(*call, body=body)
    except (CrmUnavailableError, CrmAnswerError) as error:
        turn.no_answer(places, error)
        return None
    except CrmRefusedError as error:
        turn.refused(places, error)
        return None
    return None if turn.refuses_us(places, answer, to_an_id=False) else answer
