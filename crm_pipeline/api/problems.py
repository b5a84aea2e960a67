"""Problems: every error as one kind of JSON document, with fixed words and nothing of the request."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from crm_pipeline.connectors.base import ConnectorError
from crm_pipeline.sync.errors import (
    BusyError,
    DisabledError,
    OutdatedDatabaseError,
    PushFailedError,
    RecordRejected,
    SyncError,
    UnknownContactError,
)

MEDIA_TYPE = "application/problem+json"
DATABASE_AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeoutError, OutdatedDatabaseError)
"""The database cannot be used now: gone, full, locked, or waiting for its upgrade."""
RETRY_SECONDS = 5
"""When to come again after something that passes by itself."""


class Problem(Exception):  # noqa: N818 - an answer, not a failure of ours
    """An answer that is an error."""

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        """Say what is wrong.

        Args:
            status: HTTP status.
            detail: for people; fixed words, never what was sent. It is told as a sentence.
            headers: more headers.
            members: more members of the document, such as ``reasons``.
        """
        self.status = status
        self.detail = _sentence(detail)
        super().__init__(self.detail)
        self.headers = dict(headers or {})
        self.members = members

    @property
    def document(self) -> dict[str, Any]:
        """The body: RFC 9457's members and ``success``."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "success": False,
            **self.members,
        }

    @property
    def response(self) -> Response:
        """The answer as it is sent."""
        return Response(orjson.dumps(self.document), self.status, headers=self.headers, media_type=MEDIA_TYPE)


def _sentence(text: str) -> str:
    """With a capital, unless it begins with the name of a setting or the like, and a full stop."""
    begun = text[:1].upper() + text[1:] if _WORD.match(text) else text
    return begun if begun.endswith(".") else f"{begun}."


_WORD = re.compile("[a-z]+ ")


def passing(status: int, detail: str, *, seconds: int = RETRY_SECONDS) -> Problem:
    """Something that passes by itself: come again after so many seconds."""
    return Problem(status, detail, headers={"Retry-After": str(seconds)})


def unauthorized() -> Problem:
    """One and the same answer to a missing or wrong key, secret or signature."""
    return Problem(401, "The request does not prove who sends it.", headers={"WWW-Authenticate": "ApiKey"})


def problem_of(error: Exception) -> Problem:
    """The answer to a failure. Texts of our own errors are made to be shown; those of others are not."""
    if isinstance(error, Problem):
        return error
    for kinds, answer in _ANSWERS:
        if isinstance(error, kinds):
            return answer(error)
    return Problem(500, "Something went wrong here.")


def _routing(error: Any) -> Problem:
    if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
        return Problem(404, "There is nothing at this address.")
    allowed = ", ".join(sorted(error.headers["Allow"].split(", ")))
    return Problem(405, "The address does not take this method.", headers={"Allow": allowed})


def _push_failed(error: Any) -> Problem:
    return Problem(422, str(error), reasons=error.reasons) if error.refused else Problem(502, str(error))


_Answer = Callable[[Any], Problem]
_ANSWERS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], _Answer], ...] = (
    (HTTPException, _routing),
    (DATABASE_AWAY, lambda _: passing(503, "The database cannot be used now.")),
    (DisabledError, lambda error: Problem(503, str(error))),
    (UnknownContactError, lambda error: Problem(404, str(error))),
    (BusyError, lambda error: passing(409, str(error))),
    (RecordRejected, lambda error: Problem(422, REJECTED, reasons=error.reasons)),
    (PushFailedError, _push_failed),
    ((ConnectorError, SyncError), lambda error: Problem(502, str(error))),
)
REJECTED = "The payload cannot become a contact."
