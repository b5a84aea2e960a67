"""Zoho CRM: contacts by page token, deleted records apart, writes by a hundred."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import orjson

from crm_pipeline import instants
from crm_pipeline.connection import Connection
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
from crm_pipeline.connectors.reasons import codes
from crm_pipeline.connectors.records import RecordReader
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
    refusal_of,
    server_time,
)
from crm_pipeline.connectors.zoho_watch import Channel, ask_for
from crm_pipeline.connectors.zoho_writes import BATCH, ZohoWriter

_PAGE = 200
_DEPTH = 100_000
"""Records that page tokens lead through; then the listing starts again where it stood."""
_MOST_FIELDS = 50
_NO_CONTENT, _NOT_MODIFIED = 204, 304
_REFUSED = frozenset({400, 404})
_SECOND = timedelta(seconds=1)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_VERSION = re.compile(r"/crm/v([0-9]+)(?:\.[0-9])?/Contacts")
_FIRST_WITH_TOKENS = 3


class ZohoConnector:
    """One Zoho CRM account."""

    def __init__(
        self, connection: Connection, session: Session, clock: Callable[[], datetime] = instants.now
    ) -> None:
        """Take a session of that connection; ``close`` closes it."""
        self._connection, self._session, self._clock = connection, session, clock
        self._reader = RecordReader(connection)
        self._path = _contacts_path(connection)
        self._unique = connection.writing.upsert_by
        self._fields = ",".join(_field_names(connection))
        self._writer = ZohoWriter(session, self._url, self._unique)

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
    def bulk(self) -> None:
        """No jobs."""

    @read_ahead
    def pages(self, window: Window, resume: Resume | None = None) -> Iterator[Page]:
        """Read a window page by page, oldest change first. See ``Connector.pages``.

        What was deleted in a window follows what was changed in it.
        """
        place, ending = resume or {"by": "list"}, Ending()
        while True:
            read_at = self._clock()
            answer = self._asked(window, place)
            if place is resume and answer.status in _REFUSED:
                raise ResumeError(f"the CRM refuses the place to go on from (status {answer.status})")
            found = self._body(answer)
            records = self._records(found, window, place)
            following = self._following(found, records, window, place)
            ending.turn(following, records)
            yield Page(tuple(records), read_at, following, server_time(answer))
            if following is None:
                return
            place = following

    def read(self, external_ids: Sequence[str]) -> list[Record]:
        """Read records by id, a hundred in a call. See ``Connector.read``."""
        ids = [each for each in dict.fromkeys(external_ids) if each.isascii() and each.isdecimal()]
        return [record for some in chunks(ids, BATCH) for record in self._by_ids(some)]

    def find(self, unique_value: str) -> list[Record] | None:
        """Records that hold the unique value, asked for by COQL: its search lags. See ``Connector.find``."""
        if self._unique is None:
            return None
        value = unique_value.replace("\\", "\\\\").replace("'", "\\'")
        query = {"select_query": f"select id from Contacts where {self._unique} = '{value}' limit 0, 200"}  # noqa: S608 - the name is checked, the value escaped
        answer = self._session.send("POST", self._beside("coql"), body=orjson.dumps(query), reads=True)
        found = self._body(answer)
        ids = [str(item.get("id")) for item in list_in(found, "data") if isinstance(item, dict)]
        return self.read(ids)

    def write(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Write up to ``batch_size`` records. See ``Connector.write``."""
        return self._writer.write(writes)

    def schema(self) -> list[CrmField] | None:
        """The module's fields. See ``Connector.schema``."""
        answer = self._session.send("GET", self._beside("settings/fields"), params={"module": "Contacts"})
        return [_field(each) for each in fields_in(self._body(answer), "fields")]

    def refuses_writes(self) -> str | None:
        """Ask to change a contact that cannot exist. See ``Connector.refuses_writes``."""
        answer = self._session.send("PUT", self._url(), body=b'{"data":[{"id":"1"}],"trigger":[]}')
        told = codes(answer.body)
        return told if _FORBIDDEN & set(told.split(", ")) else refusal_of(answer)

    def watch(self, channel: Channel) -> datetime:
        """Renew a notification channel, or make it; when it ends. See ``ask_for``."""
        return ask_for(self._session, self._beside("actions/watch"), channel)

    def close(self) -> None:
        """Give connections back."""
        self._session.close()

    def _url(self, below: str = "") -> str:
        return f"{origin_of(self._session.address.base)}{self._path}{below}"

    def _beside(self, path: str) -> str:
        """The URL of what lies beside the contacts."""
        return f"{origin_of(self._session.address.base)}{self._path.rpartition('/')[0]}/{path}"

    def _asked(self, window: Window, place: Resume) -> Answer:
        """Ask for the page at a place."""
        since = place.get("since") or (None if window.since is None else _time(window.since - _SECOND))
        headers = {"If-Modified-Since": str(since)} if since else {}
        if place["by"] == "deleted":
            params = {"type": "all", "per_page": str(_PAGE), "page": str(place.get("page", 1))}
            return self._session.send("GET", self._url("/deleted"), params=params, headers=headers)
        params = {"fields": self._fields, "per_page": str(_PAGE)}
        params |= {"sort_by": "Modified_Time", "sort_order": "asc"}
        params |= {"page_token": str(place["token"])} if place.get("token") else {}
        return self._session.send("GET", self._url(), params=params, headers=headers)

    def _body(self, answer: Answer) -> dict[str, Any]:
        """What an answer holds: nothing at all means that there are no records."""
        if answer.status in {_NO_CONTENT, _NOT_MODIFIED}:
            return {"data": [], "info": {"more_records": False}}
        return body_of(answer, self._connection)

    def _records(self, found: dict[str, Any], window: Window, place: Resume) -> list[Record]:
        items = list_in(found, "data")
        if place["by"] == "deleted":
            return [
                _tombstone(item) for item in items if isinstance(item, dict) and _deleted_in(item, window)
            ]
        until, records = window.until, [self._reader.record(item) for item in items]
        return [
            each for each in records if until is None or each.modified_at is None or each.modified_at < until
        ]

    def _following(
        self, found: dict[str, Any], records: Sequence[Record], window: Window, place: Resume
    ) -> Resume | None:
        told = found.get("info")
        info: Mapping[str, Any] = told if isinstance(told, dict) else {}
        more = info.get("more_records")
        if not isinstance(more, bool):
            raise CrmAnswerError("the CRM does not say whether there is more")
        if place["by"] == "deleted":
            return {"by": "deleted", "page": int(place.get("page", 1)) + 1} if more else None
        if not more:
            return {"by": "deleted"} if window.since is not None else None
        seen = int(place.get("seen", 0)) + len(list_in(found, "data"))
        token = info.get("next_page_token")
        times = [each.modified_at for each in records if each.modified_at is not None]
        if (seen >= _DEPTH or not token) and times:
            return {"by": "list", "since": _time(times[-1] - _SECOND)}
        return {"by": "list", "token": token, "seen": seen, "since": place.get("since")}

    def _by_ids(self, ids: Sequence[str]) -> list[Record]:
        params = {"fields": self._fields, "ids": ",".join(ids), "per_page": str(_PAGE)}
        found = self._body(self._session.send("GET", self._url(), params=params))
        return [self._reader.record(item) for item in list_in(found, "data")]


def _contacts_path(connection: Connection) -> str:
    """Where contacts are; an old version in the URL has no page tokens, and the preset's is taken."""
    found = _VERSION.search(urlsplit(connection.base_url).path)
    if found is not None and int(found[1]) >= _FIRST_WITH_TOKENS:
        return found[0]
    return connection.listing.path


def _field_names(connection: Connection) -> list[str]:
    """Fields to ask for, by their own names: of a lookup's path only the first part."""
    paths = [*field_paths(connection), *filter(None, [connection.writing.upsert_by])]
    names = list(dict.fromkeys([*(path.partition(".")[0] for path in paths), "Modified_Time"]))
    if not all(_NAME.fullmatch(name) for name in names):
        raise ConnectorSetupError("a field of the connection is not the name of a Zoho field")
    if len(names) > _MOST_FIELDS:
        raise ConnectorSetupError(f"Zoho lists up to {_MOST_FIELDS} fields, and the connection names more")
    return names


_KINDS = {
    "picklist": "choice",
    "multiselectpicklist": "choice",
    "integer": "number",
    "bigint": "number",
    "double": "number",
    "currency": "number",
    "datetime": "time",
    "date": "time",
    "boolean": "boolean",
}


def _field(told: dict[str, Any]) -> CrmField:
    return CrmField(
        str(told.get("api_name")),
        _KINDS.get(str(told.get("data_type")), "text"),
        told.get("read_only") is not True,
        bool(told.get("unique")),
        tuple(str(option.get("actual_value")) for option in options_in(told, "pick_list_values")),
    )


def _time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")


def _tombstone(item: dict[str, Any]) -> Record:
    return Record(item, str(item.get("id")), None, deleted=True)


def _deleted_in(item: dict[str, Any], window: Window) -> bool:
    """Whether it was deleted in the window; one without a time may have been."""
    try:
        when = datetime.fromisoformat(str(item.get("deleted_time")))
    except ValueError:
        return True
    if when.tzinfo is None:
        return True
    return (window.since is None or when >= window.since - _SECOND) and (
        window.until is None or when < window.until
    )


# Zoho's own words.

_CREDITS = "X-API-CREDITS-REMAINING"
_TOO_MANY = frozenset({"TOO_MANY_REQUESTS", "RATE_LIMIT_EXCEEDED"})
_FORBIDDEN = frozenset({"NO_PERMISSION", "OAUTH_SCOPE_MISMATCH", "AUTHORIZATION_FAILED"})
_UNKNOWN_TOKEN = frozenset({"INVALID_TOKEN", "AUTHENTICATION_FAILURE"})
_OK = 200


def _read(answer: Answer) -> Answer:
    """Tell what a code at the top of a body says, whatever the status beside it."""
    if answer.status == _OK and len(answer.body) > 4096:  # noqa: PLR2004 - errors are short
        return answer
    code = _code(answer.body)
    if code in _TOO_MANY:
        return replace(answer, status=429)
    if code in _UNKNOWN_TOKEN:
        return replace(answer, status=401)
    if code is not None and answer.status == _OK:
        return replace(answer, status=400)
    return answer


def _code(body: bytes) -> str | None:
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    failed = isinstance(told, dict) and told.get("status") == "error" and "data" not in told
    return str(told.get("code")) if failed else None


def _usage(headers: Mapping[str, str]) -> Usage | None:
    """Read the credits that are left: told only once half of them are used."""
    text = headers.get(_CREDITS, "")
    return Usage(daily_left=int(text)) if text.isdecimal() else None


_ACCOUNTS = {"zohoapis.ca": "accounts.zohocloud.ca"}
_API_HOST = re.compile(r"(?:www|sandbox|developer)\.(zohoapis)(\.[a-z.]+)")


def _token_url(base: str) -> str:
    """The accounts server of the same data centre: a token of another is useless."""
    host = urlsplit(base).hostname or ""
    found = _API_HOST.fullmatch(host)
    if found is None:
        return f"{origin_of(base)}/oauth/v2/token"
    ending = "".join(found.groups())
    return f"https://{_ACCOUNTS.get(ending, 'accounts.zoho' + found[2])}/oauth/v2/token"


DIALECT = Dialect(_read, _usage, _token_url)
