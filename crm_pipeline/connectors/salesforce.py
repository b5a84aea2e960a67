"""Salesforce: contacts by SOQL and sObject Collections."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import orjson

from crm_pipeline import instants
from crm_pipeline.connection import Connection
from crm_pipeline.connectors import soql
from crm_pipeline.connectors.ahead import read_ahead
from crm_pipeline.connectors.base import (
    ConnectorSetupError,
    CrmAnswerError,
    CrmField,
    Page,
    Record,
    Resume,
    ResumeError,
    Window,
    Write,
    WriteResult,
)
from crm_pipeline.connectors.budget import Usage
from crm_pipeline.connectors.records import RecordReader
from crm_pipeline.connectors.salesforce_bulk import SalesforceBulk
from crm_pipeline.connectors.salesforce_writes import BATCH, SalesforceWriter
from crm_pipeline.connectors.session import Answer, Dialect, Session
from crm_pipeline.connectors.vendor import (
    Ending,
    body_of,
    chunks,
    field_paths,
    fields_in,
    list_in,
    options_in,
    origin_of,
    server_time,
)

_IDS_IN_A_QUERY = 400
"""Ids of 18 characters that a query's URL has room for."""
_ALWAYS = ("Id", "SystemModstamp", "IsDeleted", "MasterRecordId")
_VERSION = re.compile(r"/services/data/(v[0-9]+\.[0-9])")
_NEXT = re.compile(r"/services/data/v[0-9]+\.[0-9]/query(?:All)?/[\w-]+")


class SalesforceConnector:
    """One Salesforce org."""

    def __init__(
        self, connection: Connection, session: Session, clock: Callable[[], datetime] = instants.now
    ) -> None:
        """Take a session of that connection; ``close`` closes it."""
        self._connection, self._session, self._clock = connection, session, clock
        self._reader = RecordReader(connection)
        self._data = _data_path(connection)
        self._fields = [soql.field(name) for name in dict.fromkeys([*_ALWAYS, *field_paths(connection)])]
        self._unique = connection.writing.upsert_by and soql.field(connection.writing.upsert_by)
        self._writer = SalesforceWriter(session, self._url, self._unique)
        self._bulk: SalesforceBulk | None = None
        if connection.writing.bulk_from is not None:
            self._bulk = SalesforceBulk(connection, session, self._url, self._unique)

    @property
    def calls(self) -> int:
        """HTTP requests sent so far, repeats included."""
        return self._session.calls

    @property
    def reads_by_modified(self) -> bool:
        """Whether the CRM itself restricts a listing to a window."""
        return True

    @property
    def batch_size(self) -> int:
        """How many writes one call takes at the most."""
        return BATCH

    @property
    def bulk(self) -> SalesforceBulk | None:
        """Bulk API jobs, where the connection wants them."""
        return self._bulk

    @read_ahead
    def pages(self, window: Window, resume: Resume | None = None) -> Iterator[Page]:
        """Read a window page by page. See ``Connector.pages``.

        A window shows deleted records, too; the winner of a merge follows its losers.
        """
        place, ending = resume, Ending()
        while True:
            read_at = self._clock()
            answer = self._asked(window, place)
            if place is resume is not None and answer.status in {400, 404}:
                raise ResumeError(f"the CRM refuses the place to go on from (status {answer.status})")
            found = body_of(answer, self._connection)
            records = [self._reader.record(_bare(item)) for item in list_in(found, "records")]
            place = _following(found)
            ending.turn(place, records)
            yield Page((*records, *self._winners(records)), read_at, place, server_time(answer))
            if place is None:
                return

    def read(self, external_ids: Sequence[str]) -> list[Record]:
        """Read records by id; a merged one comes as its winner. See ``Connector.read``."""
        ids = [each for each in dict.fromkeys(external_ids) if soql.is_id(each)]
        found = [record for some in chunks(ids, _IDS_IN_A_QUERY) for record in self._by_ids(some)]
        present = {record.external_id: record for record in found if not record.deleted}
        present |= {record.external_id: record for record in self._winners(found)}
        return list(present.values())

    def find(self, unique_value: str) -> list[Record] | None:
        """Records that hold the unique value. See ``Connector.find``."""
        if self._unique is None:
            return None
        condition = f"{self._unique} = {soql.literal(unique_value)}"
        return self._queried("query", soql.select(self._fields, condition))

    def write(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Write up to ``batch_size`` records. See ``Connector.write``."""
        return self._writer.write(writes)

    def schema(self) -> list[CrmField] | None:
        """The fields of Contact that our user sees. See ``Connector.schema``."""
        return [_field(each) for each in fields_in(self._described, "fields")]

    def refuses_writes(self) -> str | None:
        """The object's description says so. See ``Connector.refuses_writes``."""
        may_not = [word for word in ("createable", "updateable") if self._described.get(word) is not True]
        return f"contacts are not {' and not '.join(may_not)} for this user" if may_not else ""

    @cached_property
    def _described(self) -> dict[str, Any]:
        answer = self._session.send("GET", self._url("sobjects/Contact/describe"))
        return body_of(answer, self._connection)

    def close(self) -> None:
        """Give connections back."""
        self._session.close()

    def _asked(self, window: Window, place: Resume | None) -> Answer:
        if place is not None:
            path = str(place.get("next"))
            if not _NEXT.fullmatch(path):
                raise ResumeError("the place to go on from is none of Salesforce's")
            return self._session.send("GET", origin_of(self._session.address.base) + path)
        # Deleted records are asked for only where they are news.
        resource = "queryAll" if window.since is not None else "query"
        query = soql.select(self._fields, *soql.within(window), order=soql.ORDER)
        return self._session.send("GET", self._url(resource), params={"q": query})

    def _winners(self, records: Sequence[Record]) -> list[Record]:
        """Records that others were merged into, as far as they are not there already."""
        masters = [record.payload.get("MasterRecordId") for record in records if record.deleted]
        there = {record.external_id for record in records}
        ids = dict.fromkeys(each for each in masters if isinstance(each, str) and soql.is_id(each))
        missing = [each for each in ids if each not in there]
        found = [record for some in chunks(missing, _IDS_IN_A_QUERY) for record in self._by_ids(some)]
        return [record for record in found if not record.deleted]

    def _by_ids(self, ids: Sequence[str]) -> list[Record]:
        return self._queried("queryAll", soql.select(self._fields, soql.one_of(ids)))

    def _queried(self, resource: str, query: str) -> list[Record]:
        """Answer a query whole: few records are asked for, yet wide ones may come in several pages."""
        found = body_of(self._session.send("GET", self._url(resource), params={"q": query}), self._connection)
        records = list_in(found, "records")
        while (place := _following(found)) is not None:
            found = body_of(self._asked(Window(), place), self._connection)
            records += list_in(found, "records")
        return [self._reader.record(_bare(item)) for item in records]

    def _url(self, path: str) -> str:
        return f"{origin_of(self._session.address.base)}{self._data}/{path}"


def _data_path(connection: Connection) -> str:
    """Where the data is, of the version that the URL names, or else the preset's."""
    for text in (urlsplit(connection.base_url).path, connection.listing.path):
        if found := _VERSION.search(text):
            return f"/services/data/{found[1]}"
    raise ConnectorSetupError("listing.path must name a version of the API, as /services/data/v67.0/query")


_KINDS = {
    "picklist": "choice",
    "multipicklist": "choice",
    "double": "number",
    "int": "number",
    "currency": "number",
    "percent": "number",
    "datetime": "time",
    "date": "time",
    "boolean": "boolean",
}


def _field(told: dict[str, Any]) -> CrmField:
    options = [option for option in options_in(told, "picklistValues") if option.get("active", True)]
    return CrmField(
        str(told.get("name")),
        _KINDS.get(str(told.get("type")), "text"),
        told.get("updateable") is True and told.get("createable") is not False,
        told.get("externalId") is True and told.get("unique") is True,
        tuple(str(option.get("value")) for option in options),
    )


def _following(found: Mapping[str, Any]) -> Resume | None:
    path = found.get("nextRecordsUrl")
    if found.get("done") is True and not path:
        return None
    if not isinstance(path, str) or not _NEXT.fullmatch(path):
        raise CrmAnswerError("the CRM says there is more, and gives no way to it")
    return {"next": path}


def _bare(item: Any) -> Any:
    """A record without ``attributes``, its own and its relations': they change with the API's version."""
    if not isinstance(item, dict):
        return item
    return {name: _bare(value) for name, value in item.items() if name != "attributes"}


# Salesforce's own words.

_LIMIT = "REQUEST_LIMIT_EXCEEDED"
_SLOW_CALLS = "ConcurrentPerOrgLongTxn"
_USAGE = re.compile(r"api-usage=([0-9]{1,12})/([0-9]{1,12})")
_FORBIDDEN, _BAD, _GONE_LOCATOR = 403, 400, "INVALID_QUERY_LOCATOR"
_MINUTE = "60"


def _read(answer: Answer) -> Answer:
    """Tell a used-up quota, which comes as 403 or 400, as HTTP does."""
    if answer.status not in {_FORBIDDEN, _BAD} or _LIMIT not in _codes(answer.body):
        return answer
    concurrent = _SLOW_CALLS.encode() in answer.body
    headers = {**answer.headers, "Retry-After": _MINUTE}
    return replace(answer, status=429, headers=headers, final=not concurrent)


def _codes(body: bytes) -> set[str]:
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return set()
    return (
        {str(item.get("errorCode")) for item in told if isinstance(item, dict)}
        if isinstance(told, list)
        else set()
    )


def _usage(headers: Mapping[str, str]) -> Usage | None:
    """Read ``Sforce-Limit-Info``: more may stand behind the org's own figures."""
    found = _USAGE.search(headers.get("Sforce-Limit-Info", ""))
    return Usage(int(found[2]), max(0, int(found[2]) - int(found[1]))) if found else None


DIALECT = Dialect(_read, _usage, lambda base: f"{origin_of(base)}/services/oauth2/token")
