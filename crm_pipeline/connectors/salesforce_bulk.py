"""Salesforce's Bulk API 2.0: one job for thousands of writes, and what became of every row of it.

Nothing is written before the job is closed for uploads (``UploadComplete``), so a job that
is still ``Open`` can be given up without harm. Results come in another order than the rows
were sent in: each is found by the id, or by the external id, that the row carried.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from crm_pipeline.connection import Connection
from crm_pipeline.connectors import soql
from crm_pipeline.connectors.base import (
    ConnectorError,
    CrmAnswerError,
    JobRefusedError,
    Json,
    Write,
    WriteResult,
    WriteStatus,
)
from crm_pipeline.connectors.salesforce_writes import refusal
from crm_pipeline.connectors.session import Answer, Session, problem_of
from crm_pipeline.connectors.vendor import body_of

MOST_ROWS = 10_000
"""Salesforce works through a job in portions of so many rows."""
_MOST_BYTES = 8 * 1024 * 1024
"""Salesforce takes 100 MB. The results repeat the rows, and have to be read whole."""
_POLLS = (1.0, 2.0, 4.0, 8.0, 15.0, *[30.0] * 20)
"""Seconds before each look at a job, some ten minutes in all; then a later run looks."""
_NULL = "#N/A"
_CSV = {"Content-Type": "text/csv; charset=UTF-8"}
_RESULTS = {"Accept": "text/csv"}
_OPEN = "Open"
_ENDED = frozenset({"JobComplete", "Failed", "Aborted"})
_CLOSE, _ABORT = b'{"state":"UploadComplete"}', b'{"state":"Aborted"}'
_JOB = re.compile(r"[a-zA-Z0-9]{15,18}")
_MISSING = frozenset({400, 404})
_ERROR = re.compile(r"([A-Z_]{3,60}):.*?(?::([\w ,.]*) ?--)?\s*", re.DOTALL)
"""``CODE:text:Field__c --``, of which only code and fields are told on."""
_NOT_TAKEN = "the CRM's job ended before it came to the record"


class SalesforceBulk:
    """Jobs of the Bulk API for contacts."""

    most = MOST_ROWS

    def __init__(
        self, connection: Connection, session: Session, url: Callable[[str], str], unique: str | None
    ) -> None:
        """``unique``: the external id field that creates are upserted by, where there is one."""
        self._connection, self._session, self._url, self._unique = connection, session, url, unique
        self.threshold = connection.writing.bulk_from or MOST_ROWS

    def portion(self, writes: Sequence[Write]) -> list[int]:
        """Places of the writes of the next job: all changes, or all creates. See ``Bulk.portion``."""
        for creating in (False, True):
            fit = [place for place, write in enumerate(writes) if self._fits(write, creating=creating)]
            if len(fit) >= self.threshold:
                return _first(writes, fit)
        return []

    def open(self, writes: Sequence[Write]) -> str:
        """Open a job. See ``Bulk.open``."""
        told: dict[str, Any] = {"object": "Contact", "contentType": "CSV", "lineEnding": "CRLF"}
        told |= (
            {"operation": "upsert", "externalIdFieldName": self._unique}
            if writes[0].external_id is None
            else {"operation": "update"}
        )
        answer = self._session.send("POST", self._url("jobs/ingest"), body=orjson.dumps(told))
        if _refuses_jobs(answer):
            raise JobRefusedError(f"the CRM takes no jobs (status {answer.status})")
        job = body_of(answer, self._connection).get("id")
        if not isinstance(job, str) or not _JOB.fullmatch(job):
            raise CrmAnswerError("the CRM opened a job and does not say which")
        return job

    def send(self, job: str, writes: Sequence[Write]) -> list[WriteResult]:
        """Upload, close, wait and read the results. See ``Bulk.send``."""
        try:
            uploaded = self._session.send(
                "PUT", self._url(f"jobs/ingest/{job}/batches"), body=self._csv(writes), headers=_CSV
            )
            problem = problem_of(uploaded)
        except ConnectorError as error:
            uploaded, problem = None, error
        if problem is not None:
            return self._not_uploaded(job, writes, uploaded, problem)
        try:
            self._session.send("PATCH", self._url(f"jobs/ingest/{job}"), body=_CLOSE)
            for wait in _POLLS:
                self._session.sleep(wait)
                results = self.settle(job, writes)
                if results is not None:
                    return results
        except JobRefusedError:
            raise
        except ConnectorError as error:
            return _all(writes, WriteStatus.UNKNOWN, str(error))
        return _all(writes, WriteStatus.UNKNOWN, "the CRM is still at work on it")

    def settle(self, job: str, writes: Sequence[Write]) -> list[WriteResult] | None:
        """Ask for a job, and read its results once it has ended. See ``Bulk.settle``."""
        if not _JOB.fullmatch(job):
            return _all(writes, WriteStatus.UNKNOWN, "the job is none of Salesforce's")
        answer = self._session.send("GET", self._url(f"jobs/ingest/{job}"))
        if answer.status in _MISSING:  # results are kept for seven days
            return _all(writes, WriteStatus.UNKNOWN, "the CRM does not know the job any more")
        told = body_of(answer, self._connection)
        if told.get("state") == _OPEN:
            aborted = self._session.send("PATCH", self._url(f"jobs/ingest/{job}"), body=_ABORT)
            told = body_of(aborted, self._connection)
            if told.get("state") == "Aborted" and not told.get("numberRecordsProcessed"):
                return _all(writes, WriteStatus.FAILED, "the job was not sent to its end")
        if told.get("state") not in _ENDED:
            return None
        return self._results(job, told, writes)

    def _not_uploaded(
        self, job: str, writes: Sequence[Write], answer: Answer | None, problem: ConnectorError
    ) -> list[WriteResult]:
        """Give a job up that nobody has closed: certainly nothing was written."""
        with contextlib.suppress(ConnectorError):  # else it stays open, and writes nothing
            self._session.send("PATCH", self._url(f"jobs/ingest/{job}"), body=_ABORT)
        if answer is not None and _refuses_jobs(answer):
            raise JobRefusedError(f"the CRM does not take the job's rows (status {answer.status})")
        return _all(writes, WriteStatus.FAILED, str(problem))

    def _results(self, job: str, told: Mapping[str, Any], writes: Sequence[Write]) -> list[WriteResult]:
        """Read what became of each row, from as many lists as it takes to know of all."""
        key = "Id" if writes[0].external_id is not None else str(self._unique)
        places = {own: place for place, write in enumerate(writes) if (own := self._key(write))}
        found: dict[int, WriteResult] = {}

        def note(row: Mapping[str, str], judge: Callable[[Write, Mapping[str, str]], WriteResult]) -> None:
            place = places.get(row.get(key, ""))
            if place is not None:
                twice = place in found
                found[place] = _unsaid(writes[place]) if twice else judge(writes[place], row)

        for row in self._rows(job, "successfulResults", key):
            note(row, _written)
        if told.get("numberRecordsFailed") != 0 and len(found) < len(writes):
            for row in self._rows(job, "failedResults", key):
                note(row, _refused)
        if not found and told.get("state") == "Failed":
            raise JobRefusedError("the CRM does not do the writes as a job")
        if len(found) < len(writes):
            for row in self._rows(job, "unprocessedrecords", key):
                note(row, _unprocessed)
        return [found.get(place) or _unsaid(write) for place, write in enumerate(writes)]

    def _rows(self, job: str, kind: str, key: str) -> Iterator[dict[str, str]]:
        """One list of results.

        Raises:
            ConnectorError: it cannot be read to its end.
        """
        url = self._url(f"jobs/ingest/{job}/{kind}/")
        answer = self._session.send("GET", url, headers=_RESULTS)
        problem = problem_of(answer)
        if problem is not None:
            raise problem
        try:
            text = answer.body.decode("utf-8-sig")
            table = csv.DictReader(io.StringIO(text, newline=""), restkey="", restval="", strict=True)
            if key not in (table.fieldnames or [key]):
                raise CrmAnswerError("the job's results do not name their records")
            yield from table
        except (UnicodeDecodeError, csv.Error):
            raise CrmAnswerError("the job's results are no CSV") from None

    def _fits(self, write: Write, *, creating: bool) -> bool:
        """Whether a row of CSV can say what is to be written."""
        if (write.external_id is None) != creating or not self._key(write):
            return False
        return all(_cell(value) is not None for value in write.changes.values())

    def _key(self, write: Write) -> str:
        if write.external_id is not None:
            return write.external_id if soql.is_id(write.external_id) else ""
        value = write.changes.get(self._unique) if self._unique else None
        return value if isinstance(value, str) else ""

    def _csv(self, writes: Sequence[Write]) -> bytes:
        """The rows: an empty cell leaves a field alone, ``#N/A`` empties it."""
        updating = writes[0].external_id is not None
        names = sorted({name for write in writes for name in write.changes})
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\r\n")
        table.writerow(["Id", *names] if updating else names)
        for write in writes:
            cells = [_cell(write.changes[name]) if name in write.changes else "" for name in names]
            table.writerow([write.external_id, *cells] if updating else cells)
        return text.getvalue().encode()


def _first(writes: Sequence[Write], places: Sequence[int]) -> list[int]:
    """As many as one job carries."""
    chosen, size = list[int](), 0
    for place in places[:MOST_ROWS]:
        size += len(orjson.dumps(writes[place].changes))
        if chosen and size > _MOST_BYTES:
            break
        chosen.append(place)
    return chosen


def _cell(value: Json) -> str | None:
    """A value as CSV says it; None where CSV cannot."""
    if value is None or value == "":
        return _NULL  # Salesforce keeps an empty text as none, too
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return value if isinstance(value, str) and value != _NULL and "\0" not in value else None


def _refuses_jobs(answer: Answer) -> bool:
    """Whether an answer is about jobs, and not about us or the present."""
    status = answer.status
    return 400 <= status < 500 and status not in {401, 408, 425, 429}  # noqa: PLR2004


def _all(writes: Sequence[Write], status: WriteStatus, text: str) -> list[WriteResult]:
    return [WriteResult(status, write.external_id, reason=text) for write in writes]


def _written(write: Write, row: Mapping[str, str]) -> WriteResult:
    own = row.get("sf__Id", "")
    known = write.external_id
    if not soql.is_id(own) or (known is not None and own[:15] != known[:15]):
        return _unsaid(write)
    return WriteResult(WriteStatus.WRITTEN, known or own)


def _refused(write: Write, row: Mapping[str, str]) -> WriteResult:
    found = _ERROR.fullmatch(row.get("sf__Error", ""))
    fields = [name.strip() for name in (found[2] or "").split(",")] if found else []
    return refusal(write, [{"statusCode": found[1] if found else None, "fields": fields}])


def _unprocessed(write: Write, _row: Mapping[str, str]) -> WriteResult:
    return WriteResult(WriteStatus.FAILED, write.external_id, reason=_NOT_TAKEN)


def _unsaid(write: Write) -> WriteResult:
    text = "the job's results do not say what became of the record"
    return WriteResult(WriteStatus.UNKNOWN, write.external_id, reason=text)
