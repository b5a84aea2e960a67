"""What every connector offers: pages of records out, batches of writes in.

A connector speaks one CRM's dialect over HTTP. It knows no database and decides
nothing about contacts: it reads what is there, writes what it is told, and says for
every single write what became of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeAlias

Json: TypeAlias = Any
"""A decoded JSON value, as it came."""

Resume: TypeAlias = dict[str, Any]
"""JSON-able place to go on reading from: opaque to everybody but the connector."""


class Record(NamedTuple):  # a frozen dataclass takes three times as long to make
    """A contact as the CRM has it."""

    payload: Json
    """The record as it came. Anything but an object becomes a reject further on."""
    external_id: str | None = None
    modified_at: datetime | None = None
    """Time zone aware; None where the CRM tells none."""
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing."""

    records: tuple[Record, ...]
    read_at: datetime
    """Our clock just before the request: nothing in the page is newer than the answer."""
    next: Resume | None
    """Where the following page starts; None on the last one."""
    server_time: datetime | None = None
    """The CRM's own clock (``Date`` header)."""
    followed: bool = False
    """Whether the next page has come already: it can be had without waiting, and without an error."""


@dataclass(frozen=True, slots=True)
class Window:
    """Records modified at or after ``since`` and before ``until``; open ends are None."""

    since: datetime | None = None
    until: datetime | None = None


class Write(NamedTuple):  # as Record
    """One record to be created (no ``external_id``) or changed."""

    key: str
    """Unique name of this write, the same when it is repeated: the idempotency key."""
    external_id: str | None
    changes: dict[str, Json]
    """Only what is to be written, in the CRM's own shape."""
    expected: datetime | None = None
    """The record's modified time as last read: a CRM that can check it refuses to overwrite
    what we have not seen."""


@dataclass(frozen=True, slots=True)
class CrmField:
    """One field of the CRM's records, as the CRM describes it."""

    path: str
    """Where a record holds it."""
    kind: str = ""
    """``text``, ``number``, ``time``, ``choice`` or ``boolean``; empty where it is none of them."""
    writable: bool = True
    unique: bool = False
    options: tuple[str, ...] = ()
    """What a choice takes."""


class WriteStatus(StrEnum):
    """What became of one write."""

    WRITTEN = "written"
    REFUSED = "refused"
    """The CRM will not take this content; repeating it is useless. Where its answer names
    the record that is in the way (409), the result's ``external_id`` is that record's."""
    FAILED = "failed"
    """Certainly not applied, for a cause that can pass (429, lock, 503 with Retry-After, no
    connection, credentials): repeat later."""
    GONE = "gone"
    """The record to be changed does not exist any more."""
    CHANGED = "changed"
    """Not applied: the record has changed since it was read. Read it again first."""
    UNKNOWN = "unknown"
    """Sent, and no one can tell whether it was applied, or, of a create, under which id:
    read back before repeating."""


class WriteResult(NamedTuple):  # as Record
    """The CRM's answer to one write."""

    status: WriteStatus
    external_id: str | None = None
    """Always there when ``WRITTEN``."""
    record: Record | None = None
    """The record as the CRM holds it now, where the answer carries it. It may be a part of it,
    or nothing but its modified time."""
    reason: str = ""
    """For people: no secrets, no personal data."""


class ConnectorError(Exception):
    """The CRM could not be used. The text carries no secret and no personal data."""


class CrmUnavailableError(ConnectorError):
    """A passing cause: network, timeout, 429 or 5xx after all retries."""


class CrmRefusedError(ConnectorError):
    """The CRM refuses us: credentials, permissions, a request it calls wrong."""


class AccessRefusedError(CrmRefusedError):
    """It refuses whoever asks, whatever is asked: credentials or permissions."""


class CrmAnswerError(ConnectorError):
    """The CRM answered something that cannot be a page or a record."""


class ConnectorSetupError(ConnectorError):
    """The connection cannot work as it is configured; the text names the setting."""


class ResumeError(ConnectorError):
    """The place to go on from is no longer accepted: start the window again."""


class JobRefusedError(ConnectorError):
    """The CRM will not do these writes as a job, and has made none of them: they may go in batches."""


class Bulk(Protocol):
    """Jobs that carry many writes, where a CRM has them.

    A job is opened, its id stored by the caller, and only then sent: whatever happens after
    that, the CRM can be asked what became of it.
    """

    @property
    def threshold(self) -> int:
        """So many writes of one kind are worth a job."""

    @property
    def most(self) -> int:
        """How many writes a job carries at the most."""

    def portion(self, writes: Sequence[Write]) -> list[int]:
        """Places of the writes the next job is to carry; none where batches cost fewer calls."""

    def open(self, writes: Sequence[Write]) -> str:
        """Open a job for a portion; its id. It writes nothing yet.

        Raises:
            JobRefusedError: the account has no such jobs.
            ConnectorError: no job was opened.
        """

    def send(self, job: str, writes: Sequence[Write]) -> list[WriteResult]:
        """Send the writes and wait for their results, in the order given.

        Of a job that is still at work after some minutes they are ``UNKNOWN``.

        Raises:
            JobRefusedError: see there.
        """

    def settle(self, job: str, writes: Sequence[Write]) -> list[WriteResult] | None:
        """What became of a job's writes, of which only the ids need be known; None while it is at work.

        A job that was not sent to its end is given up.

        Raises:
            ConnectorError: the CRM could not be asked.
        """


class Connector(Protocol):
    """One CRM account."""

    @property
    def calls(self) -> int:
        """HTTP requests sent so far, repeats included."""

    @property
    def reads_by_modified(self) -> bool:
        """Whether the CRM itself restricts a listing to a window."""

    @property
    def batch_size(self) -> int:
        """How many writes one call takes at the most."""

    @property
    def bulk(self) -> Bulk | None:
        """Jobs for very many writes; None where there are none."""

    def pages(self, window: Window, resume: Resume | None = None) -> Iterator[Page]:
        """Read a window page by page, lazily.

        Raises:
            ConnectorError: the listing could not be read to its end.
            ResumeError: ``resume`` was refused before any page was read.
        """

    def read(self, external_ids: Sequence[str]) -> list[Record]:
        """Read records by id. A record that does not exist is left out.

        A record merged into another comes back under the other's id.

        Raises:
            ConnectorError: any other answer.
        """

    def find(self, unique_value: str) -> list[Record] | None:
        """Records the CRM finds by this value; None where it cannot be asked.

        The caller checks that they hold the value: some CRMs ignore a filter they do not know.

        Raises:
            ConnectorError: no answer, or more than one page of them (the filter was ignored).
        """

    def write(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Write up to ``batch_size`` records; one result each, in the order given.

        Never raises for a single record. Once the CRM refuses us or cannot be reached, the
        writes that are left are ``FAILED`` without being sent.

        Raises:
            CrmRefusedError: it refuses us (credentials, permission, address), and nothing
                of this call was applied.
        """

    def schema(self) -> list[CrmField] | None:
        """The fields of the CRM's records; None where it does not describe them.

        Raises:
            ConnectorError: no answer.
        """

    def refuses_writes(self) -> str | None:
        """Why we may not create and change contacts; empty where we may, None where nobody can tell.

        Nothing is changed by it.

        Raises:
            ConnectorError: no answer.
        """

    def close(self) -> None:
        """Give connections back."""
