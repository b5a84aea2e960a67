"""Salesforce's Bulk API 2.0: jobs that take CSV, work for a while, and list what became of each row."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from crm_pipeline.simulators.answers import json_answer, object_of
from crm_pipeline.simulators.salesforce_rules import KNOWN, NUMBERS, READ_ONLY, SalesforceError
from crm_pipeline.simulators.vendor import VendorCrm

MOST_BYTES = 100 * 1024 * 1024
OPERATIONS = {"insert": "create", "update": "update", "upsert": "upsert"}
_LINE_ENDS = {"LF": "\n", "CRLF": "\r\n"}
_READ_ONLY = READ_ONLY - {"Id"}
_AT_WORK = frozenset({"UploadComplete", "InProgress"})
Write = Callable[[str, str | None, dict[str, Any], set[Any]], dict[str, Any]]
"""Writes one row: kind, external id field, record, and keys that come twice."""


@dataclass(slots=True)
class Job:
    """One ingest job."""

    id: str
    operation: str
    unique: str | None
    line_end: str
    version: str
    state: str = "Open"
    text: str | None = None
    closed_at: datetime | None = None
    error: str = ""
    rows: list[dict[str, str]] = field(default_factory=list)
    written: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    refused: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """The job as its caller sees it."""
        return {
            "id": self.id,
            "operation": self.operation,
            "object": "Contact",
            "state": self.state,
            "contentType": "CSV",
            "lineEnding": "CRLF" if self.line_end == "\r\n" else "LF",
            "columnDelimiter": "COMMA",
            "apiVersion": float(self.version.removeprefix("v")),
            "contentUrl": f"services/data/{self.version}/jobs/ingest/{self.id}/batches",
            **({"externalIdFieldName": self.unique} if self.unique else {}),
            **({"errorMessage": self.error} if self.error else {}),
            "numberRecordsProcessed": len(self.written) + len(self.refused),
            "numberRecordsFailed": len(self.refused),
        }


class Jobs:
    """Handlers of an org's jobs."""

    def __init__(self, crm: VendorCrm, write: Write) -> None:
        """``write`` does what a single row says."""
        self._crm, self._write = crm, write
        self._jobs: dict[str, Job] = {}

    def table(self, path: str) -> list[tuple[str, str, str, Callable[[Request, Any], Response]]]:
        """Method, path, kind of call and handler of every call."""
        return [
            ("POST", path, "job_open", self.create),
            ("PUT", f"{path}/{{job}}/batches", "job_upload", self.upload),
            ("PATCH", f"{path}/{{job}}", "job_close", self.change),
            ("GET", f"{path}/{{job}}", "job_look", self.look),
            ("DELETE", f"{path}/{{job}}", "job_delete", self.forget),
            ("GET", f"{path}/{{job}}/{{kind}}", "job_results", self.results),
            ("GET", f"{path}/{{job}}/{{kind}}/", "job_results", self.results),
        ]

    def work(self) -> None:
        """Do what is due by now: jobs end in their own time, whether anybody asks or not."""
        now = self._crm.clock()
        for job in self._jobs.values():
            if job.state in _AT_WORK and job.closed_at is not None:
                passed = now - job.closed_at
                job.state = "InProgress"
                if passed >= timedelta(seconds=self._crm.options.job_seconds):
                    self._carry_out(job)

    def create(self, request: Request, payload: Any) -> Response:
        """A job, open for its rows."""
        asked = object_of(payload)
        operation, unique = asked.get("operation"), asked.get("externalIdFieldName")
        if asked.get("object") != "Contact" or operation not in OPERATIONS:
            raise SalesforceError(400, "INVALIDJOB", "Unsupported object or operation")
        if (operation == "upsert") != isinstance(unique, str):
            raise SalesforceError(400, "INVALIDJOB", "externalIdFieldName goes with upsert")
        line_end = _LINE_ENDS.get(asked.get("lineEnding", "LF"))
        if asked.get("contentType", "CSV") != "CSV" or line_end is None:
            raise SalesforceError(400, "INVALIDJOB", "Unsupported content type or line ending")
        job_id = f"750xx{len(self._jobs) + 1:010d}AAA"
        job = Job(job_id, operation, unique, line_end, request.path_params["version"])
        self._jobs[job_id] = job
        return _answer(job)

    def upload(self, request: Request, body: Any) -> Response:
        """The rows, once for each job."""
        job = self._job(request)
        if not request.headers.get("Content-Type", "").startswith("text/csv"):
            raise SalesforceError(415, "UNSUPPORTED_MEDIA_TYPE", "text/csv is needed")
        if job.state != "Open" or job.text is not None:
            raise SalesforceError(400, "INVALIDJOBSTATE", "Found multiple contents for job")
        if len(body) > MOST_BYTES:
            raise SalesforceError(400, "INVALIDJOB", "The data is too large")
        job.text = body.decode("utf-8", "replace")
        return Response(status_code=201)

    def change(self, request: Request, payload: Any) -> Response:
        """Close a job for uploads, or give it up."""
        job, state = self._job(request), object_of(payload).get("state")
        if state == "UploadComplete" and job.state == "Open" and job.text is not None:
            job.state, job.closed_at = state, self._crm.clock()
        elif state == "Aborted" and job.state in {"Open", *_AT_WORK}:
            job.state = state
            self._wrong(job)
        else:
            raise SalesforceError(400, "INVALIDJOBSTATE", f"Job is {job.state}, and cannot become {state}")
        return _answer(job)

    def look(self, request: Request, _payload: Any) -> Response:
        """A job's state."""
        return _answer(self._job(request))

    def forget(self, request: Request, _payload: Any) -> Response:
        """Remove a job that has ended."""
        job = self._job(request)
        if job.state in {"Open", *_AT_WORK}:
            raise SalesforceError(400, "INVALIDJOBSTATE", "Only ended jobs can be deleted")
        del self._jobs[job.id]
        return Response(status_code=204)

    def results(self, request: Request, _payload: Any) -> Response:
        """One list of results, in no order."""
        job, kind = self._job(request), request.path_params["kind"].casefold()
        told: list[dict[str, str]]
        if kind == "successfulresults":
            first = ["sf__Id", "sf__Created"]
            told = [
                {
                    "sf__Id": end["id"],
                    "sf__Created": str(end.get("created", job.operation == "insert")).lower(),
                    **row,
                }
                for row, end in job.written
            ]
        elif kind == "failedresults":
            first = ["sf__Id", "sf__Error"]
            told = [
                {"sf__Id": row.get("Id", ""), "sf__Error": _error(end), **row} for row, end in job.refused
            ]
        elif kind == "unprocessedrecords":
            first, told = [], job.rows if job.state in {"Failed", "Aborted"} else []
        else:
            raise SalesforceError(404, "NOT_FOUND", "The requested resource does not exist")
        told = random.Random(job.id).sample(told, len(told))
        text = io.StringIO(newline="")
        names = [*first, *(job.rows[0] if job.rows else ())]
        table = csv.DictWriter(text, names, lineterminator=job.line_end, quoting=csv.QUOTE_ALL)
        table.writeheader()
        table.writerows(told)
        return Response(text.getvalue().encode(), media_type="text/csv")

    def _job(self, request: Request) -> Job:
        job = self._jobs.get(request.path_params["job"])
        if job is None:
            raise SalesforceError(404, "NOT_FOUND", "The requested resource does not exist")
        return job

    def _carry_out(self, job: Job) -> None:
        job.state, job.error = "Failed", self._wrong(job)
        if job.error:
            return
        job.state = "JobComplete"
        keys = [row.get(job.unique or "") for row in job.rows]
        double = {key for key in keys if keys.count(key) > 1} if len(set(keys)) < len(keys) else set()
        for row in job.rows:
            record = {name: _value(name, cell) for name, cell in row.items() if cell}
            end = self._write(OPERATIONS[job.operation], job.unique, record, double)
            (job.written if end["success"] else job.refused).append((row, end))

    def _wrong(self, job: Job) -> str:
        """Read a job's rows; why it fails as a whole, empty where it does not."""
        text = job.text or ""
        head = text.partition("\n")[0] + "\n"
        if head.endswith("\r\n") != (job.line_end == "\r\n"):
            setting = "CRLF" if job.line_end == "\r\n" else "LF"
            return f"ClientInputError : LineEnding is invalid on user data. Current setting is {setting}"
        try:
            job.rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        except csv.Error:
            return "InvalidBatch : Failed to parse the CSV"
        names = job.rows[0].keys() if job.rows else ()
        unknown = [str(name) for name in names if name not in KNOWN or name in _READ_ONLY]
        if unknown:
            return f"InvalidBatch : Field name not found : {unknown[0]}"
        key = "Id" if job.operation == "update" else job.unique
        return f"InvalidBatch : {key} is missing" if key and key not in names else ""


def _value(name: str, cell: str) -> Any:
    """A cell as the field holds it; ``#N/A`` empties it."""
    if cell == "#N/A":
        return None
    if name not in NUMBERS:
        return cell
    try:
        number = float(cell)
    except ValueError:
        return cell
    return int(number) if number.is_integer() else number


def _error(end: Mapping[str, Any]) -> str:
    error = end["errors"][0]
    return f"{error['statusCode']}:{error['message']}:{','.join(error['fields'])} --"


def _answer(job: Job) -> Response:
    return json_answer(orjson.dumps(job.told()))
