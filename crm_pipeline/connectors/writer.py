"""Writes to a CRM: batches where it takes them, single calls else, one result for each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC
from email.utils import format_datetime
from itertools import islice

import orjson

from crm_pipeline.connection import BatchCall, Call, Connection
from crm_pipeline.connectors.address import UnaddressableError
from crm_pipeline.connectors.base import (
    ConnectorError,
    CrmAnswerError,
    CrmRefusedError,
    CrmUnavailableError,
    Json,
    Record,
    Write,
    WriteResult,
    WriteStatus,
)
from crm_pipeline.connectors.documents import merged, nest
from crm_pipeline.connectors.repeats import NotSentError, certainly_not_applied
from crm_pipeline.connectors.session import Answer, Session
from crm_pipeline.connectors.verdicts import Verdicts, status_of

SINGLES = 20
"""Single calls in one ``write``: so many intents may have to be read back after a crash."""
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
_HEADER_SAFE = re.compile(r"[!-~]{1,255}")


class _Turn:
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


class Writer:
    """Writes the way a connection describes."""

    def __init__(
        self,
        connection: Connection,
        session: Session,
        verdicts: Verdicts,
        read: Callable[[str], Record | None],
    ) -> None:
        """``read`` gets one record, None where it is gone: the base of a PUT."""
        self._writing, self._session, self._verdicts, self._read = connection.writing, session, verdicts, read

    @property
    def batch_size(self) -> int:
        """How many writes one call takes at the most."""
        batches = (self._writing.batch_create, self._writing.batch_update)
        return max((batch.size for batch in batches if batch is not None), default=SINGLES)

    def write(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Write records; one result each, in the order given. See ``Connector.write``."""
        turn = _Turn(writes)
        creates = [place for place, write in enumerate(writes) if write.external_id is None]
        updates = [place for place, write in enumerate(writes) if write.external_id is not None]
        writing = self._writing
        for places, single, batch in (
            (creates, writing.create, writing.batch_create),
            (updates, writing.update, writing.batch_update),
        ):
            if batch is None:
                for place in places:
                    self._single(turn, place, single)
            else:
                for some in _chunks(places, batch.size):
                    self._batch(turn, some, batch)
        return turn.finish()

    def _single(self, turn: _Turn, place: int, call: Call) -> None:
        write, places = turn.writes[place], [place]
        if not turn.due(places):
            return
        try:
            url = self._session.address.at(call.path, write.external_id)
        except UnaddressableError as error:
            turn.settle(places, WriteStatus.REFUSED, str(error))
            return
        content = self._content(turn, place, call.method)
        if content is None:
            return
        answer = self._send(turn, places, call.method, url, nest(call.envelope, content))
        if answer is not None and not turn.refuses_us(places, answer, to_an_id=write.external_id is not None):
            turn.results[place] = self._verdicts.single(answer, write, call.record)

    def _batch(self, turn: _Turn, places: Sequence[int], call: BatchCall) -> None:
        """Send a batch, of the rows that can be sent at all."""
        if not turn.due(places):
            return
        contents = {place: self._content(turn, place, call.method, call.id_field) for place in places}
        ready = {place: content for place, content in contents.items() if content is not None}
        self._batch_of(turn, ready, call)

    def _batch_of(self, turn: _Turn, rows: dict[int, orjson.Fragment], call: BatchCall) -> None:
        """Send rows; a batch refused as a whole is cut in two until the guilty rows stand alone."""
        places = list(rows)
        if not places or not turn.due(places):
            return
        items = nest(call.envelope, list(rows.values()))
        answer = self._send(turn, places, call.method, self._session.address.at(call.path), items)
        if answer is None or turn.refuses_us(places, answer, to_an_id=False):
            return
        writes = [turn.writes[place] for place in places]
        results = self._verdicts.rows(answer, writes, call)
        status = status_of(answer.status, creating=True)
        if results is not None:
            turn.results.update(zip(places, results, strict=True))
        elif status is WriteStatus.REFUSED and len(places) > 1:
            half = len(places) // 2
            for some in (places[:half], places[half:]):
                self._batch_of(turn, {place: rows[place] for place in some}, call)
        elif status is WriteStatus.REFUSED:
            turn.results[places[0]] = self._verdicts.single(answer, writes[0], None)
        else:
            text = f"the batch's answer (status {answer.status}) does not list one result for each record"
            turn.settle(places, WriteStatus.UNKNOWN, text)

    def _content(
        self, turn: _Turn, place: int, method: str, id_field: str | None = None
    ) -> orjson.Fragment | None:
        """Encode what is sent of a record, with its id where a batch wants it. None where that settles it."""
        write = turn.writes[place]
        content = self._whole(turn, place) if method == "PUT" and write.external_id else write.changes
        if content is None:
            return None
        if id_field and write.external_id:
            content = merged(content, nest(id_field, write.external_id))
        try:
            return orjson.Fragment(orjson.dumps(content))
        except TypeError:
            turn.settle([place], WriteStatus.REFUSED, "the record holds a value that JSON cannot carry")
            return None

    def _whole(self, turn: _Turn, place: int) -> dict[str, Json] | None:
        """Return the record as it is now, with the changes; None where that settles the write already.

        A PUT replaces the record: whatever it does not repeat would be erased.
        """
        write = turn.writes[place]
        try:
            record = self._read(str(write.external_id))
        except ConnectorError as error:
            reason = f"not sent, the record cannot be read first: {error}"
            turn.settle([place], WriteStatus.FAILED, reason)
            return None
        if record is None:
            turn.settle([place], WriteStatus.GONE, "the record does not exist any more")
            return None
        if write.expected is not None and record.modified_at not in {None, write.expected}:
            turn.settle([place], WriteStatus.CHANGED, "the record has changed since it was read")
            return None
        return merged(record.payload, write.changes)

    def _send(
        self, turn: _Turn, places: Sequence[int], method: str, url: str, content: Json
    ) -> Answer | None:
        """Send; None when there is no answer to judge and the writes are settled."""
        writes = [turn.writes[place] for place in places]
        try:
            return self._session.send(method, url, body=orjson.dumps(content), headers=self._headers(writes))
        except (CrmUnavailableError, CrmAnswerError) as error:
            turn.no_answer(places, error)
            return None

    def _headers(self, writes: Sequence[Write]) -> dict[str, str]:
        name, first = self._writing.idempotency_header, writes[0]
        if first.external_id is None:
            return {name: _key_of(writes)} if name else {}
        if self._writing.if_unmodified_since and first.expected is not None and len(writes) == 1:
            return {"If-Unmodified-Since": format_datetime(first.expected.astimezone(UTC), usegmt=True)}
        return {}


def _chunks(places: Sequence[int], size: int) -> Iterator[list[int]]:
    rest = iter(places)
    while some := list(islice(rest, size)):
        yield some


def _key_of(writes: Sequence[Write]) -> str:
    """One key for one request: the same again for the same writes."""
    if len(writes) == 1 and _HEADER_SAFE.fullmatch(writes[0].key):
        return writes[0].key
    return hashlib.sha256("\n".join(write.key for write in writes).encode()).hexdigest()
