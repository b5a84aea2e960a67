"""Limits: never more than so many in any minute, whoever asks and however."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits.aio.storage import MemoryStorage

from crm_pipeline.api.limits import Limiter, Window, shared_storage
from crm_pipeline.api.logs import Log
from crm_pipeline.api.problems import Problem
from crm_pipeline_tests.api.conftest import Serve


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def limiter(clock: Clock, per_minute: int = 100, **options: Any) -> Limiter:
    """A limiter on that clock."""
    return Limiter(per_minute, clock=clock, log=Log(io.BytesIO()), **options)


def refusal(limits: Limiter, name: str = "192.0.2.7", kind: str = "address") -> Problem | None:
    """Count one request; how it was refused."""
    try:
        asyncio.run(limits.count(kind, name))
    except Problem as problem:
        return problem
    return None


@given(gaps=st.lists(st.floats(min_value=0, max_value=8), min_size=20, max_size=120))
def test_never_too_many_in_any_minute(gaps: Sequence[float]) -> None:
    """Whenever requests come: no 60 seconds hold more than the limit, and none is refused below it."""
    clock = Clock()
    limits, let_in = limiter(clock, 10), list[float]()
    for gap in gaps:
        clock.now += gap
        recent = [at for at in let_in if at > clock.now - 60]
        refused = refusal(limits)
        assert (refused is None) == (len(recent) < 10)
        if refused is None:
            let_in.append(clock.now)


def test_the_edge_of_a_window_lets_no_second_hundred_through() -> None:
    """100 just before a minute ends are not followed by 100 just after."""
    clock = Clock()
    limits = limiter(clock)
    clock.now = 59.9
    assert [refusal(limits) for _ in range(100)] == [None] * 100
    clock.now = 60.1
    assert refusal(limits) is not None


def test_a_refusal_says_when_to_come_again() -> None:
    """Retry-After is true to the second: then, and not a second before, one more is let in."""
    clock = Clock()
    limits = limiter(clock)
    for second in range(100):
        clock.now = 1000 + second / 10
        assert refusal(limits) is None
    refused = refusal(limits)
    assert refused is not None
    assert refused.status == 429
    assert refused.headers == {
        "Retry-After": "51",
        "RateLimit": '"address";r=0;t=51',
        "RateLimit-Policy": '"address";q=100;w=60',
    }
    clock.now += 50
    assert refusal(limits) is not None
    clock.now += 1
    assert refusal(limits) is None


def test_callers_are_counted_apart() -> None:
    """One caller's requests are not another's, nor a key's; a key has ten times as many."""
    limits = limiter(Clock(), 5)
    assert [refusal(limits) is None for _ in range(6)] == [True] * 5 + [False]
    assert refusal(limits, "192.0.2.8") is None
    assert [refusal(limits, kind="key") is None for _ in range(51)] == [True] * 50 + [False]


def test_memory_is_bounded() -> None:
    """A million addresses do not cost a million entries; who is active is remembered."""
    clock = Clock()
    memory = Window(clock, most=1000)
    for number in range(20_000):
        assert memory.hit(("address", f"caller {number}"), 3) is None
        if number % 500 == 0:
            memory.hit(("address", "the active one"), 3)
    assert len(memory) == 1000
    assert memory.hit(("address", "the active one"), 3) == 60


class BrokenStorage(MemoryStorage):
    """A shared store that is away."""

    STORAGE_SCHEME = ["async+broken"]  # noqa: RUF012 - as the library declares it

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Fail."""
        del key, limit, expiry, amount
        raise ConnectionRefusedError


def test_without_its_store_each_process_counts_for_itself() -> None:
    """A store that is away neither opens the door nor shuts it, and is told in the log."""
    output = io.BytesIO()
    limits = Limiter(3, shared=BrokenStorage(), clock=Clock(), log=Log(output))
    assert [refusal(limits) is None for _ in range(4)] == [True, True, True, False]
    assert b"the rate limit's store fails" in output.getvalue()


def test_processes_share_a_store() -> None:
    """Two limiters on one store let no more in than one."""
    store = MemoryStorage()
    log = Log(io.BytesIO())

    async def both() -> list[bool]:
        found = []
        for limits in [Limiter(3, shared=store, log=log), Limiter(3, shared=store, log=log)] * 2:
            try:
                await limits.count("address", "192.0.2.7")
                found.append(True)
            except Problem:
                found.append(False)
        return found

    assert asyncio.run(both()) == [True, True, True, False]


@pytest.mark.parametrize(
    "url, told",
    [
        ("nonsense://u:pw@host", "no known kind"),
        ("nonsense", "no known kind"),
        ("redis://u:pw@host", "prerequisite"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_without_its_url(url: str, told: str) -> None:
    """The URL may hold a password."""
    with pytest.raises(ValueError, match=told) as refused:
        shared_storage(url)
    assert "pw" not in str(refused.value)


def test_the_101st_request_over_a_socket(serve: Serve) -> None:
    """100 a minute for an address; the next is told when to come again, healthz goes on answering."""
    api = serve(rate_limit=100)
    statuses = [api.ask("GET", "/api/external/status").status_code for _ in range(100)]
    assert statuses == [200] * 100
    refused = api.ask("GET", "/api/external/status")
    assert refused.status_code == 429
    assert refused.json()["success"] is False
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit-Policy"] == '"address";q=100;w=60'
    assert api.post({"phone": "628111111111"}).status_code == 429
    assert api.rows() == (0, 0)
    assert api.ask("GET", "/healthz", key=None).status_code == 200


def test_failed_attempts_count(serve: Serve) -> None:
    """Guessing keys, secrets and addresses is limited like everything else."""
    api = serve(rate_limit=6)
    assert [api.ask("GET", "/api/external/status", key="wrong").status_code for _ in range(3)] == [401] * 3
    assert [api.ask("GET", "/nowhere", key=None).status_code for _ in range(3)] == [404] * 3
    assert api.ask("GET", "/api/external/status").status_code == 429


def test_an_invented_address_does_not_help(serve: Serve) -> None:
    """Headers that name other addresses are not believed: still one caller."""
    api = serve(rate_limit=10)
    names = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP")
    statuses = [
        api.ask(
            "GET", "/api/external/status", headers=dict.fromkeys(names, f"198.51.100.{number}")
        ).status_code
        for number in range(11)
    ]
    assert statuses == [200] * 10 + [429]


def test_behind_a_trusted_proxy_callers_are_told_apart(serve: Serve) -> None:
    """By the address the proxy saw, not by what the client put before it."""
    api = serve(rate_limit=3, trusted_proxies="127.0.0.1")

    def status(forwarded: str) -> int:
        return api.ask("GET", "/api/external/status", headers={"X-Forwarded-For": forwarded}).status_code

    assert [status(f"203.0.113.{number}, 198.51.100.1") for number in range(4)] == [200, 200, 200, 429]
    assert [status(f"2001:db8::{number}") for number in range(4)] == [200, 200, 200, 429]
    assert status("198.51.100.2") == 200


def test_the_limit_can_be_off(serve: Serve) -> None:
    """RATE_LIMIT_ENABLED=false counts nobody."""
    api = serve(rate_limit=1, rate_limit_enabled=False)
    assert [api.ask("GET", "/api/external/status").status_code for _ in range(5)] == [200] * 5


def test_only_allowed_addresses_get_in(serve: Serve) -> None:
    """Others hear 403, whatever they present; a probe of the process itself is answered."""
    api = serve(allowed_ips="192.0.2.0/24,2001:db8::/32", trusted_proxies="127.0.0.1")
    for forwarded, expected in {
        "192.0.2.7": 200,
        "::ffff:192.0.2.7": 200,
        "2001:db8::1": 200,
        "198.51.100.1": 403,
        "192.0.2.7, 198.51.100.1": 403,
    }.items():
        answer = api.ask("GET", "/api/external/status", headers={"X-Forwarded-For": forwarded})
        assert answer.status_code == expected, forwarded
    refused = api.ask("GET", "/api/external/status", key=None)
    assert refused.status_code == 403
    assert refused.json()["success"] is False
    assert api.ask("GET", "/healthz", key=None).status_code == 200
