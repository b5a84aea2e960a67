"""What can go wrong with a simulated CRM: the options, their spelling, and whose turn it is.

Every fault is off by default and they combine. "Every k-th" counts the requests a fault
applies to and that no earlier fault has spoilt, so two faults with one period both show.
The same options and the same requests always give the same faults.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

FOREIGN_HOST = "https://crm.invalid"
"""Where foreign links point unless told otherwise: a name that never resolves."""

CallKind = Literal["list", "read", "write"]
"""What faults tell apart: a listing, any other GET, and everything that changes something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Which faults a CRM has. Counts are "every k-th", 0 is off; times are seconds."""

    seed: int = 1
    """Chooses which records are broken, and how."""
    latency: float = 0.0
    """Every request waits this long."""
    rate_limit: int = 0
    """429 on every k-th request; with ``rate_window`` on all beyond so many in a window."""
    rate_window: float = 0.0
    retry_after: int = 1
    """Seconds told in ``Retry-After`` (with ``rate_window``: what is left of the window)."""
    retry_after_date: bool = False
    """``Retry-After`` as an HTTP date instead of seconds."""
    server_error: int = 0
    """Every k-th request fails with ``server_error_status`` and does nothing."""
    server_error_status: int = 500
    html_login: int = 0
    """Every k-th request is answered 200 with a login page."""
    error_in_200: int = 0
    """Every k-th request is answered 200 with ``{"success": false, …}`` and does nothing."""
    cut_before_write: int = 0
    """On every k-th write the connection closes without an answer; nothing was applied."""
    cut_after_write: int = 0
    """On every k-th write the connection closes without an answer; it was applied."""
    truncated_json: int = 0
    """Every k-th GET is answered with half its JSON, as if that were all."""
    cut_in_answer: int = 0
    """On every k-th GET the connection closes in the middle of the body."""
    slow_drip: float = 0.0
    """The body of every listing comes in twenty pieces over this time."""
    bad_record: int = 0
    """One in so many of the present records is broken (``badrecords.py`` says how)."""
    repeated_cursor: bool = False
    """From the second page on, the next page is the same page again."""
    foreign_next_link: str = ""
    """Links to the next page point to this scheme and host."""
    foreign_redirect: str = ""
    """Listings are answered 307 to this scheme and host."""


class FaultError(ValueError):
    """A fault is spelt wrongly; the text says what is accepted."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a fault is written on the command line."""

    usage: str
    meaning: str
    parse: Callable[[str], dict[str, Any]]


def _every(field: str) -> Callable[[str], dict[str, Any]]:
    return lambda value: {field: _count(value)}


def _seconds(field: str) -> Callable[[str], dict[str, Any]]:
    return lambda value: {field: _duration(value)}


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ValueError("a whole number from 1 is needed")
    return int(value)


def _duration(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError("a number of seconds is needed")
    return seconds


def _rate_limit(value: str) -> dict[str, Any]:
    head, *options = value.split(":")
    count, _, window = head.partition("/")
    fields: dict[str, Any] = {"rate_limit": _count(count)}
    if window:
        fields["rate_window"] = _duration(window)
    for option in options:
        if option == "date":
            fields["retry_after_date"] = True
        else:
            fields["retry_after"] = math.ceil(_duration(option))
    return fields


def _server_error(value: str) -> dict[str, Any]:
    count, _, status = value.partition(":")
    fields: dict[str, Any] = {"server_error": _count(count)}
    if status:
        fields["server_error_status"] = _status_5xx(status)
    return fields


def _status_5xx(value: str) -> int:
    if value.isdecimal() and 500 <= int(value) <= 599:  # noqa: PLR2004 - the 5xx range
        return int(value)
    raise ValueError("the status must be 500 to 599")


def _host(field: str) -> Callable[[str], dict[str, Any]]:
    def parse(value: str) -> dict[str, Any]:
        url = urlsplit(value or FOREIGN_HOST)
        if url.scheme not in {"http", "https"} or not url.netloc:
            raise ValueError("a URL such as https://elsewhere.example is needed")
        return {field: f"{url.scheme}://{url.netloc}"}

    return parse


def _switch(field: str) -> Callable[[str], dict[str, Any]]:
    def parse(value: str) -> dict[str, Any]:
        if value:
            raise ValueError("it takes no value")
        return {field: True}

    return parse


SPELLINGS: dict[str, Spelling] = {
    "latency": Spelling("latency=SECONDS", "every request waits", _seconds("latency")),
    "rate_limit": Spelling(
        "rate_limit=K[:date][:SECONDS] or rate_limit=N/SECONDS[:date]",
        "429 with Retry-After on every k-th request, or beyond N in a window",
        _rate_limit,
    ),
    "server_error": Spelling("server_error=K[:STATUS]", "5xx on every k-th request", _server_error),
    "html_login": Spelling("html_login=K", "a login page with status 200", _every("html_login")),
    "error_in_200": Spelling("error_in_200=K", "an error body with status 200", _every("error_in_200")),
    "cut_before_write": Spelling("cut_before_write=K", "cut, nothing applied", _every("cut_before_write")),
    "cut_after_write": Spelling("cut_after_write=K", "cut after it was applied", _every("cut_after_write")),
    "truncated_json": Spelling("truncated_json=K", "half the JSON of a GET", _every("truncated_json")),
    "cut_in_answer": Spelling("cut_in_answer=K", "cut inside the body of a GET", _every("cut_in_answer")),
    "slow_drip": Spelling("slow_drip=SECONDS", "listings trickle over that time", _seconds("slow_drip")),
    "bad_record": Spelling("bad_record=K", "one record in K is broken", _every("bad_record")),
    "repeated_cursor": Spelling("repeated_cursor", "page two again and again", _switch("repeated_cursor")),
    "foreign_next_link": Spelling(
        "foreign_next_link[=URL]", "next links to another host", _host("foreign_next_link")
    ),
    "foreign_redirect": Spelling(
        "foreign_redirect[=URL]", "listings redirect to another host", _host("foreign_redirect")
    ),
}
"""Every fault that can be asked for by text, with its usage and meaning for help pages."""


def parse_fault(text: str) -> dict[str, Any]:
    """Fields of ``Faults`` that a spelling such as ``rate_limit=10:date`` sets.

    Raises:
        FaultError: unknown name (the text lists the valid ones) or a wrong value.
    """
    name, _, value = text.strip().partition("=")
    spelling = SPELLINGS.get(name)
    if spelling is None:
        known = "\n  ".join(each.usage for each in SPELLINGS.values())
        raise FaultError(f"there is no fault {name!r}; choose from:\n  {known}")
    try:
        return spelling.parse(value)
    except ValueError as error:
        raise FaultError(f"fault {text!r}: {error}; write {spelling.usage}") from error


def parse_faults(texts: Iterable[str], *, seed: int = 1) -> Faults:
    """All the faults spelt in ``texts``; the later of two that set the same thing wins.

    Raises:
        FaultError: as ``parse_fault``.
    """
    fields: dict[str, Any] = {}
    for text in texts:
        fields |= parse_fault(text)
    return Faults(seed=seed, **fields)


class FaultTurns:
    """Says for each request which fault strikes it, and counts what struck."""

    def __init__(self, faults: Faults, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start all counts at zero. ``monotonic`` is the clock of the rate window, in seconds."""
        self.faults = faults
        self.struck: Counter[str] = Counter()
        self._eligible: Counter[str] = Counter()
        self._monotonic = monotonic
        self._window_start = -math.inf
        self._in_window = 0
        self._lock = threading.Lock()

    def next(self, kind: CallKind) -> str:
        """Name of the fault that strikes this request; empty when none does."""
        with self._lock:
            name = self._choose(kind)
            if name:
                self.struck[name] += 1
            return name

    def retry_after(self) -> int:
        """Seconds a caller is told to wait after a 429."""
        if self.faults.rate_window:
            left = self._window_start + self.faults.rate_window - self._monotonic()
            return max(math.ceil(left), 1)
        return self.faults.retry_after

    def _choose(self, kind: CallKind) -> str:
        faults = self.faults
        if self._over_rate():
            return "rate_limit"
        if kind == "list" and faults.foreign_redirect:
            return "foreign_redirect"
        periods = {
            "server_error": faults.server_error,
            "html_login": faults.html_login,
            "error_in_200": faults.error_in_200,
        }
        if kind == "write":
            periods |= {
                "cut_before_write": faults.cut_before_write,
                "cut_after_write": faults.cut_after_write,
            }
        else:
            periods |= {"truncated_json": faults.truncated_json, "cut_in_answer": faults.cut_in_answer}
        for name, every in periods.items():
            if self._turn(name, every):
                return name
        return "slow_drip" if kind == "list" and faults.slow_drip else ""

    def _over_rate(self) -> bool:
        if not self.faults.rate_window:
            return self._turn("rate_limit", self.faults.rate_limit)
        now = self._monotonic()
        if now >= self._window_start + self.faults.rate_window:
            self._window_start, self._in_window = now, 0
        self._in_window += 1
        return self._in_window > self.faults.rate_limit

    def _turn(self, name: str, every: int) -> bool:
        if not every:
            return False
        self._eligible[name] += 1
        return self._eligible[name] % every == 0
