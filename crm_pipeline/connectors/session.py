"""One CRM's HTTP session: requests that end, are repeated only when safe, and leak nothing.

``trust_env`` is off: no ``.netrc``, no proxy and no certificate bundle from the environment
can change where a credential goes. Redirects are not followed, and cookies are not kept.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http.cookiejar import DefaultCookiePolicy

import requests
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry

from crm_pipeline import instants
from crm_pipeline.connection import Auth, Connection
from crm_pipeline.connectors.address import Address
from crm_pipeline.connectors.auth import check_headers, make_auth
from crm_pipeline.connectors.base import (
    AccessRefusedError,
    ConnectorError,
    ConnectorSetupError,
    CrmAnswerError,
    CrmRefusedError,
    CrmUnavailableError,
)
from crm_pipeline.connectors.budget import Budget, Lane, Usage, no_usage
from crm_pipeline.connectors.credentials import repeats_credentials
from crm_pipeline.connectors.halt import halted
from crm_pipeline.connectors.oauth import MemoryShelf, Tokens, TokenShelf
from crm_pipeline.connectors.pause import Pause
from crm_pipeline.connectors.reasons import codes
from crm_pipeline.connectors.repeats import (
    NotSentError,
    asked_wait,
    may_repeat,
    may_repeat_after,
)
from crm_pipeline.connectors.transport import READ_AHEAD, Deadline, TimedAdapter
from crm_pipeline.connectors.troubles import problem_with

JITTER_SECONDS = 0.5
"""Waits are longer by up to this, so that workers stopped together do not come back together."""
ERROR_BODY_BYTES = 64 * 1024
"""How much of an error's body is read: enough for its codes."""
_ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, of any status."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    """What was asked, with its query: for resolving links, never for people."""
    final: bool = False
    """The cause may pass, but not soon: the request is not repeated now."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a CRM says in words of its own where others use HTTP's."""

    read: Callable[[Answer], Answer] = lambda answer: answer
    """Gives an answer the status it would have elsewhere, such as 429 for a limit told with 403."""
    usage: Callable[[Mapping[str, str]], Usage | None] = no_usage
    """Reads an account's limits from headers."""
    token_url: Callable[[str], str] | None = None
    """Where tokens are asked for, from the base URL."""
    lanes: tuple[tuple[str, Lane], ...] = ()
    """Ends of paths with a limit of their own beside the account's."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the processes that work one account share; each alone where it is not given."""

    tokens: TokenShelf | None = None
    budget: Budget | None = None


PLAIN, ALONE = Dialect(), Shared()


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request as an observer sees it: no address, no content."""

    method: str
    status: int | None
    """None when no answer came."""
    seconds: float


class _Requests(requests.Session):
    """A requests session that goes nowhere by itself."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """Nowhere: not followed, and not even read to look where it leads."""
        return None


class Session:
    """Sends requests to one CRM; for as many threads at once as like to."""

    def __init__(
        self,
        connection: Connection,
        api_key: str | None,
        *,
        clock: Callable[[], datetime] = instants.now,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
        observe: Callable[[Exchange], None] | None = None,
        dialect: Dialect = PLAIN,
        shared: Shared = ALONE,
    ) -> None:
        """Check everything that can be wrong before the first request.

        Args:
            connection: where the CRM is and how it is to be treated.
            api_key: the credential; its place is the connection's.
            clock: what ``Retry-After`` dates are compared with.
            sleep: waits so many seconds.
            chance: a number from 0 to 1 for each jitter.
            observe: told of every request sent.
            dialect: what the CRM says in words of its own.
            shared: tokens and budget of the account.

        Raises:
            ConnectorSetupError: the URL, a header or the key cannot be used.
        """
        self._address = Address(connection.base_url)
        self.calls = 0
        self._counting, self._pause, self._closed = threading.Lock(), Pause(), False
        self._dialect, self._budget = dialect, shared.budget
        self._limits = connection.limits
        self._retry = Retry(total=connection.limits.retries, backoff_factor=0.5)
        self._clock, self._sleep, self._chance, self._observe = clock, sleep, chance, observe
        self._deadline = Deadline()
        self._token_session: Session | None = None
        self._http = _Requests()
        self._http.trust_env = False
        self._http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("https://", "http://"):
            self._http.mount(scheme, TimedAdapter(self._deadline, connection.limits.in_flight))
        self._tokens = self._oauth(connection, shared.tokens)
        self._http.auth = self._tokens or make_auth(connection.auth, api_key)
        self._http.headers.update({"Accept": "application/json", "User-Agent": "crm-pipeline"})
        self._http.headers.update(check_headers(connection.headers))
        self._http.headers["Accept-Encoding"] = "gzip"

    @property
    def address(self) -> Address:
        """Where the CRM is; a vendor's token may name its real place.

        Of a CRM known from a file it names something else, or nothing we were told to believe.

        Raises:
            ConnectorError: there is no token to be had.
        """
        base = self._tokens.base() if self._tokens is not None else None
        named = base is not None and self._dialect is not PLAIN
        if named and not f"{self._address.base}/".startswith(f"{base}/"):
            self._address = Address(str(base))
        return self._address

    def send(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        reads: bool = False,
    ) -> Answer:
        """Send a request, and again where that is safe and worth it; return the last answer.

        The answer may be an error of the CRM: see ``problem_of``. ``reads``: it changes nothing,
        whatever its method, and may be repeated like a GET.

        Raises:
            CrmAnswerError: the URL is not the CRM's (nothing was sent), or the answer is too
                large, broken off or not HTTP.
            NotSentError: no connection.
            LostAnswerError: sent, and no answer in time.
        """
        request = self._prepare(method, url, params, body, headers)
        self._deadline.at = time.monotonic() + self._limits.total_timeout
        retry, renewed = self._retry, False
        while True:
            outcome = self._attempt(request)
            if self._tokens is not None and not renewed and _is_unauthorized(outcome):
                renewed = True  # a 401 that a new token does not heal is about something else
                self._tokens.renewed_after(str(request.headers["Authorization"]))
                request = self._prepare(method, url, params, body, headers)
                continue
            asked = self._repeat_after("GET" if reads else method, outcome)
            if asked is None or not retry.total:
                break
            retry = retry.increment(method)
            if not self._waited(asked, retry.get_backoff_time()):
                break
        if isinstance(outcome, ConnectorError):
            raise outcome
        return outcome

    def sleep(self, seconds: float) -> None:
        """Wait, as between repeats."""
        self._sleep(seconds)

    def close(self) -> None:
        """Give the connections back. Nothing more is sent; what is on its way ends by itself."""
        self._closed = True
        self._http.close()
        if self._token_session is not None:
            self._token_session.close()

    def _oauth(self, connection: Connection, shelf: TokenShelf | None) -> Tokens | None:
        """Make what gets tokens, with a session of its own: their address is another origin."""
        auth = connection.auth
        if auth.oauth is None:
            return None
        own = self._dialect.token_url
        url = auth.oauth.token_url or (own(self._address.base) if own else None)
        if url is None:
            raise ConnectorSetupError("auth.oauth.token_url is needed: where tokens are asked for")
        plain = Connection(base_url=url, auth=Auth(kind="none"), limits=connection.limits)
        self._token_session = session = Session(
            plain, None, clock=self._clock, sleep=self._sleep, chance=self._chance, observe=self._observe
        )

        def ask(url: str, form: bytes, headers: Mapping[str, str]) -> Answer:
            try:
                return session.send("POST", url, body=form, headers=headers)
            except (CrmUnavailableError, CrmAnswerError) as error:  # whatever became of it, it was no write
                raise NotSentError(f"no access token: {error}") from None

        return Tokens(auth.oauth, auth.scheme, url, ask, shelf or MemoryShelf(), self._clock)

    def _repeat_after(self, method: str, outcome: Answer | ConnectorError) -> float | None:
        """Seconds the CRM asks us to wait before a repeat; None when there must be none."""
        if isinstance(outcome, ConnectorError):
            return 0.0 if may_repeat_after(method, outcome) else None
        if outcome.final or not may_repeat(method, outcome.status, outcome.headers):
            return None
        return asked_wait(outcome.status, outcome.headers, self._clock())

    def _waited(self, asked: float, backoff: float) -> bool:
        """Wait before a repeat; False when the time of the whole call does not allow it.

        What the CRM asked for holds for every thread, and the backoff for this one.
        """
        longest = self._limits.max_retry_wait
        wait = min(asked + backoff + self._chance() * JITTER_SECONDS, longest)
        if self._ended or time.monotonic() + wait >= self._deadline.at:
            return False
        with self._pause.kept(min(asked, longest)):
            self._sleep(wait)
        return True

    def _kept_back(self, url: str) -> NotSentError | None:
        """Wait until a request may go out; why it must not, where it must not.

        What the CRM has asked another thread to wait for is waited for here, too.
        """
        left = self._pause.left()
        if time.monotonic() + left >= self._deadline.at:
            return NotSentError("not sent: the CRM asks to be left alone for longer than a request may take")
        if left:
            self._sleep(left + self._chance() * JITTER_SECONDS)
        if self._budget is not None:
            try:
                self._budget.acquire(self._lane(url))
            except NotSentError as spent:
                return spent
        return NotSentError("not sent: the work with the CRM has been ended") if self._ended else None

    @property
    def _ended(self) -> bool:
        return self._closed or halted()

    def _prepare(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> requests.PreparedRequest:
        """Build a request with its credential, for the CRM's own origin only."""
        own = {"Content-Type": "application/json"} if body is not None else {}
        prepared = None
        try:
            request = requests.Request(
                method, url, params=params, data=body, headers={**own, **(headers or {})}
            )
            prepared = self._http.prepare_request(request)
        except (requests.RequestException, HTTPError, ValueError):
            pass  # its text holds the URL or the header: raised below without it
        if prepared is None:
            raise ConnectorSetupError("a request cannot be built: the address or a header is not valid")
        if not self.address.admits(str(prepared.url)):
            raise CrmAnswerError("an address outside the CRM's own origin; refused")
        return prepared

    def _attempt(self, request: requests.PreparedRequest) -> Answer | ConnectorError:
        """Send once. Problems are returned, so that none is raised with its leaking cause."""
        kept_back = self._kept_back(str(request.url))
        if kept_back is not None:
            return kept_back
        started, status = time.monotonic(), None
        timeout = (self._limits.connect_timeout, self._limits.read_timeout)
        outcome: Answer | ConnectorError
        try:
            with self._http.send(request, stream=True, timeout=timeout) as response:
                status = response.status_code
                outcome = self._whole(response)
        except (requests.RequestException, HTTPError, OSError, http.client.HTTPException) as error:
            outcome = problem_with(error)
        if not isinstance(outcome, NotSentError):
            with self._counting:
                self.calls += 1
        if isinstance(outcome, Answer):
            self._learn(outcome)
            outcome = self._dialect.read(outcome)
        if self._observe is not None:
            self._observe(Exchange(str(request.method), status, time.monotonic() - started))
        return outcome

    def _lane(self, url: str) -> Lane | None:
        path = url.partition("?")[0]
        return next((lane for end, lane in self._dialect.lanes if path.endswith(end)), None)

    def _learn(self, answer: Answer) -> None:
        usage = self._dialect.usage(answer.headers) if self._budget is not None else None
        if usage is not None and self._budget is not None:
            self._budget.note(usage)

    def _whole(self, response: requests.Response) -> Answer | ConnectorError:
        """Read an answer's body, as much as is allowed. Of an error even nothing is enough."""
        good = is_success(response.status_code)
        try:
            body = self._body(response, self._limits.max_body_bytes if good else ERROR_BODY_BYTES)
        except (HTTPError, OSError, http.client.HTTPException) as error:
            body = problem_with(error, begun=True)
        if isinstance(body, ConnectorError):
            if good:
                return body
            body = b""
        if not good and repeats_credentials(body, response.request):
            body = b""  # its codes would be told
        return Answer(response.status_code, response.headers, body, str(response.url))

    def _body(self, response: requests.Response, most: int) -> bytes | ConnectorError:
        if response.headers.get("Content-Encoding", "").strip().lower() not in _ENCODINGS:
            return CrmAnswerError("the answer is compressed in a way that was not asked for")
        pieces, size = [], 0
        while piece := response.raw.read(READ_AHEAD, decode_content=True):
            size += len(piece)  # after decompression: a small answer may hold a huge one
            if size > most:
                return CrmAnswerError(f"the answer is larger than {most} bytes")
            pieces.append(piece)
        return b"".join(pieces)


def _is_unauthorized(outcome: Answer | ConnectorError) -> bool:
    return isinstance(outcome, Answer) and outcome.status == 401  # noqa: PLR2004


def is_success(status: int) -> bool:
    """Tell whether a status is 2xx."""
    return 200 <= status < 300  # noqa: PLR2004


def problem_of(answer: Answer) -> ConnectorError | None:
    """Say what an answer means where only success is of use; None for success (2xx)."""
    status = answer.status
    if is_success(status):
        return None
    if status < 400:  # noqa: PLR2004
        return CrmAnswerError(f"the CRM redirects to another address (status {status}); not followed")
    told = ": ".join(filter(None, (str(status), codes(answer.body))))
    if status in {401, 403, 407}:
        return AccessRefusedError(f"the CRM refuses the credentials or the permission (status {told})")
    if status in {408, 425, 429} or status >= 500:  # noqa: PLR2004
        return CrmUnavailableError(f"the CRM cannot answer now (status {status})")
    return CrmRefusedError(f"the CRM refuses the request (status {told})")
