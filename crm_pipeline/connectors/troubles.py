"""What went wrong with a request, in words of ours: those of requests hold the URL and its query."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator

from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    IncompleteRead,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from crm_pipeline.connectors.base import ConnectorError, CrmAnswerError
from crm_pipeline.connectors.repeats import CutAnswerError, LostAnswerError, NotSentError


def problem_with(error: BaseException, *, begun: bool = False) -> ConnectorError:
    """Say what went wrong; ``begun``: with an answer that had begun to come."""
    causes = list(_causes(error))
    for kinds, make, text in _PROBLEMS:
        if any(isinstance(cause, kinds) for cause in causes):
            return make(text)
    if begun:
        return CutAnswerError("the answer broke off before its end")
    return LostAnswerError("the connection to the CRM broke before it answered")


_PROBLEMS: tuple[tuple[tuple[type[BaseException], ...], type[ConnectorError], str], ...] = (
    ((NewConnectionError,), NotSentError, "the CRM cannot be reached: no such host, or no connection to it"),
    ((ConnectTimeoutError,), NotSentError, "the CRM cannot be reached: no connection in time"),
    ((ssl.SSLCertVerificationError,), NotSentError, "the CRM's TLS certificate is not trusted"),
    ((SSLError, ssl.SSLError), LostAnswerError, "the secure connection (TLS) to the CRM failed"),
    ((ReadTimeoutError, TimeoutError), LostAnswerError, "the CRM did not answer in time"),
    ((DecodeError,), CrmAnswerError, "the answer cannot be decompressed"),
    ((IncompleteRead, http.client.IncompleteRead), CutAnswerError, "the answer broke off before its end"),
    ((http.client.RemoteDisconnected,), LostAnswerError, "the CRM closed the connection without an answer"),
    ((http.client.LineTooLong,), CrmAnswerError, "the answer's header is too large"),
    ((http.client.HTTPException,), CrmAnswerError, "the answer is not HTTP, or its header is too large"),
)
"""Causes in order: the first that fits is told."""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give the error and what it was made of: requests wraps urllib3, which wraps the socket."""
    found = [error]
    for each in found:
        yield each
        inner = (*each.args, getattr(each, "reason", None))
        found.extend(part for part in inner if isinstance(part, BaseException) and part not in found)
