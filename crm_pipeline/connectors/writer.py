"""Writes to a CRM: batches where it takes them, single calls else, one result for each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC
from email.utils import format_datetime

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
from crm_pipeline.connectors.session import Answer, Session
from crm_pipeline.connectors.turns import Turn
from crm_pipeline.connectors.vendor import chunks
from crm_pipeline.connectors.verdicts import Verdicts, status_of

_HEADER_SAFE = re.compile(r"[!-~]{1,255}")
SINGLES = 20
"""Single calls in one ``write``: so many intents may have to be read back after a crash."""


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
        turn = Turn(writes)
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
                for some in chunks(places, batch.size):
                    self._batch(turn, some, batch)
        return turn.finish()

    def _single(self, turn: Turn, place: int, call: Call) -> None:
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

    def _batch(self, turn: Turn, places: Sequence[int], call: BatchCall) -> None:
        """Send a batch, of the rows that can be sent at all."""
        if not turn.due(places):
            return
        contents = {place: self._content(turn, place, call.method, call.id_field) for place in places}
        ready = {place: content for place, content in contents.items() if content is not None}
        self._batch_of(turn, ready, call)

    def _batch_of(self, turn: Turn, rows: dict[int, orjson.Fragment], call: BatchCall) -> None:
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
        self, turn: Turn, place: int, method: str, id_field: str | None = None
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

    def _whole(self, turn: Turn, place: int) -> dict[str, Json] | None:
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

    def _send(self, turn: Turn, places: Sequence[int], method: str, url: str, content: Json) -> Answer | None:
        """Send; None when there is no answer to judge and the writes are settled."""
        writes = [turn.writes[place] for place in places]
        try:
            return self._session.send(method, url, body=orjson.dumps(content), headers=self._headers(writes))
        except (CrmUnavailableError, CrmAnswerError) as error:
            turn.no_answer(places, error)
        except CrmRefusedError as error:
            turn.refused(places, error)
        return None

    def _headers(self, writes: Sequence[Write]) -> dict[str, str]:
        name, first = self._writing.idempotency_header, writes[0]
        if first.external_id is None:
            return {name: _key_of(writes)} if name else {}
        if self._writing.if_unmodified_since and first.expected is not None and len(writes) == 1:
            return {"If-Unmodified-Since": format_datetime(first.expected.astimezone(UTC), usegmt=True)}
        return {}


def _key_of(writes: Sequence[Write]) -> str:
    """One key for one request: the same again for the same writes."""
    if len(writes) == 1 and _HEADER_SAFE.fullmatch(writes[0].key):
        return writes[0].key
    return hashlib.sha256("\n".join(write.key for write in writes).encode()).hexdigest()
