"""The generic connector: any REST CRM that a connection file describes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from typing import TypeAlias

import orjson

from crm_pipeline import instants
from crm_pipeline.connection import Connection
from crm_pipeline.connectors.address import UnaddressableError
from crm_pipeline.connectors.ahead import Beginner, read_ahead
from crm_pipeline.connectors.auth import without_param
from crm_pipeline.connectors.base import (
    ConnectorError,
    CrmAnswerError,
    CrmField,
    CrmRefusedError,
    Page,
    Record,
    Resume,
    ResumeError,
    Window,
    Write,
    WriteResult,
)
from crm_pipeline.connectors.documents import document, says_failure
from crm_pipeline.connectors.paginate import Ask, At, PageFacts
from crm_pipeline.connectors.records import RecordReader
from crm_pipeline.connectors.session import Answer, Session, problem_of
from crm_pipeline.connectors.together import together
from crm_pipeline.connectors.vendor import server_time
from crm_pipeline.connectors.verdicts import Verdicts
from crm_pipeline.connectors.walk import Walk
from crm_pipeline.connectors.window import window_params
from crm_pipeline.connectors.writer import Writer

_Read: TypeAlias = tuple[datetime, Answer]
"""Our clock before a request, and what came of it."""
_NO_CONTENT = 204
_GONE = frozenset({404, 410})
_RESUME_REFUSED = frozenset({400, 404, 409, 410, 412, 416, 422})
"""What CRMs answer to a cursor that has expired."""


class RestConnector:
    """Speaks REST with JSON as the connection says."""

    def __init__(
        self, connection: Connection, session: Session, clock: Callable[[], datetime] = instants.now
    ) -> None:
        """Take a session of that connection; ``close`` closes it."""
        self._connection, self._session, self._clock = connection, session, clock
        self._reader = RecordReader(connection)
        verdicts = Verdicts(self._reader, connection.limits.max_json_depth)
        self._writer = Writer(connection, session, verdicts, self._single)

    @property
    def calls(self) -> int:
        """HTTP requests sent so far, repeats included."""
        return self._session.calls

    @property
    def reads_by_modified(self) -> bool:
        """Whether the CRM itself restricts a listing to a window."""
        return self._connection.listing.modified_since is not None

    @property
    def batch_size(self) -> int:
        """How many writes one call takes at the most."""
        return self._writer.batch_size

    @property
    def bulk(self) -> None:
        """No jobs."""

    @read_ahead
    def pages(self, window: Window, resume: Resume | None = None) -> Iterator[Page]:
        """Read a window page by page, lazily. See ``Connector.pages``.

        A CRM that cannot be asked for a window is read whole. Records modified at ``until`` or
        later are left out here; what was modified before ``since`` is not: a record may carry
        no better time than that of its creation.
        """
        walk = Walk(self._connection.pagination, self._follow, resume)
        place, resumed = resume, resume is not None
        coming: dict[At, Future[_Read]] = {}
        with Beginner() as begin:
            while True:
                for at, ask in walk.certain(self._connection.limits.in_flight).items():
                    if at not in coming:
                        coming[at] = begin(partial(self._listed, ask, window))
                early = coming.pop(walk.at, None)
                read_at, answer = early.result() if early else self._listed(walk.ask(), window)
                if resumed and answer.status in _RESUME_REFUSED:
                    raise ResumeError(f"the CRM refuses the place to go on from (status {answer.status})")
                page, facts = self._page(answer, walk.seen, window)
                place, resumed = walk.turn(facts), False
                yield Page(page, read_at, place, server_time(answer))
                if place is None:
                    return

    def read(self, external_ids: Sequence[str]) -> list[Record]:
        """Read records by id. See ``Connector.read``."""
        ids = list(dict.fromkeys(external_ids))
        found = together(self._single, ids, self._connection.limits.in_flight)
        return [record for record in found if record is not None]

    def find(self, unique_value: str) -> list[Record] | None:
        """Records the CRM finds by this value. See ``Connector.find``."""
        lookup = self._connection.writing.lookup
        if lookup is None:
            return None
        value = unique_value
        if lookup.template != "{value}":
            value = lookup.template.replace("{value}", orjson.dumps(value).decode()[1:-1])
        params = {**self._connection.listing.params, **lookup.params, lookup.param: value}
        answer = self._session.send("GET", self._session.address.at(lookup.path), params=params)
        found = self._document(answer)
        records = self._reader.looked_up(found)
        facts = PageFacts(found, answer.headers, answer.url, len(records), 0, len(records))
        if Walk(self._connection.pagination, self._follow).turn(facts) is not None:
            raise CrmAnswerError(
                "a lookup of one value has more than one page: does writing.lookup.param name a filter?"
            )
        return records

    def write(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Write up to ``batch_size`` records. See ``Connector.write``."""
        return self._writer.write(writes)

    def schema(self) -> list[CrmField] | None:
        """Nothing: a CRM known from a file does not describe itself. See ``Connector.schema``."""
        return None

    def refuses_writes(self) -> str | None:
        """Nobody can tell without writing. See ``Connector.refuses_writes``."""
        return None

    def close(self) -> None:
        """Give connections back."""
        self._session.close()

    def _listed(self, ask: Ask, window: Window) -> _Read:
        listing, paging = self._connection.listing, self._connection.pagination
        read_at = self._clock()
        if ask.link is not None:
            return read_at, self._session.send("GET", ask.link)
        size = {paging.size_param: str(listing.page_size)} if paging.size_param else {}
        params = {**listing.params, **window_params(listing, window), **size, **ask.params}
        return read_at, self._session.send("GET", self._session.address.at(listing.path), params=params)

    def _page(self, answer: Answer, seen: int, window: Window) -> tuple[tuple[Record, ...], PageFacts]:
        empty = answer.status == _NO_CONTENT
        found = [] if empty else self._document(answer)
        records = self._reader.page(found)
        digest = hash(tuple((each.external_id or repr(each.payload), each.modified_at) for each in records))
        facts = PageFacts(found, answer.headers, answer.url, len(records), digest, seen + len(records))
        until = window.until
        if until is not None:
            records = [each for each in records if each.modified_at is None or each.modified_at < until]
        return tuple(records), facts

    def _single(self, external_id: str) -> Record | None:
        """Read one record; None where it does not exist."""
        call = self._connection.writing.read
        if call is None:
            raise CrmRefusedError("this CRM cannot be asked for single records: writing.read is empty")
        try:
            url = self._session.address.at(call.path, external_id)
        except UnaddressableError:
            return None
        answer = self._session.send(call.method, url)
        if answer.status in _GONE:
            return None
        found = self._document(answer)
        record = self._reader.single(found, call.record)
        if record is None and isinstance(found, dict | list):
            raise CrmAnswerError("the answer holds no record; writing.read.record says where one is")
        if record is None:  # one broken record must not stop the others: it becomes a reject
            return Record(found, external_id)
        if record.external_id is None:
            return Record(record.payload, external_id, record.modified_at, record.deleted)
        return record

    def _document(self, answer: Answer) -> object:
        """Body of a successful answer."""
        problem: ConnectorError | None = problem_of(answer)
        if problem is not None:
            raise problem
        found = document(answer, self._connection.limits.max_json_depth)
        if says_failure(found):
            raise CrmAnswerError(f"the CRM answers status {answer.status}, and an error in the body")
        return found

    def _follow(self, current: str, link: str) -> str:
        """Resolve a link for keeping: within the CRM's origin, and without the key."""
        url = self._session.address.follow(current, link)
        auth = self._connection.auth
        return without_param(url, auth.param) if auth.kind == "query" else url
