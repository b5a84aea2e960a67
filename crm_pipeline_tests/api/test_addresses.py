"""Addresses: past trusted proxies, in one form, and no further."""

from __future__ import annotations

import ipaddress

import pytest

from crm_pipeline.api.addresses import client_address, identity, read_address, within

PROXIES = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "fd00::/8", "127.0.0.1")))


@pytest.mark.parametrize(
    "peer, forwarded, expected",
    [
        ("192.0.2.7", [], "192.0.2.7"),
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),  # whoever says so is no proxy of ours
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),  # the left one is the client's invention
        ("10.0.0.1", ["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:1234"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::1]:1234"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        (None, ["198.51.100.1"], None),
    ],
)
def test_who_sent_it(peer: str | None, forwarded: list[str], expected: str | None) -> None:
    """The nearest address that is no trusted proxy; what stands left of it is not believed."""
    found = client_address(peer, forwarded, PROXIES)
    assert (str(found) if found else None) == expected


def test_without_trusted_proxies_nobody_is_believed() -> None:
    """The connection's own address counts, whatever a header says."""
    assert str(client_address("127.0.0.1", ["198.51.100.1"], ())) == "127.0.0.1"


@pytest.mark.parametrize(
    "one, other",
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:c000:207", "192.0.2.7"),
    ],
)
def test_two_spellings_of_one_caller(one: str, other: str) -> None:
    """IPv4 written as IPv6 is IPv4, and all of an IPv6 site is one caller."""
    assert identity(read_address(one)) == identity(read_address(other))


@pytest.mark.parametrize("one, other", [("2001:db8:1:2::1", "2001:db8:1:3::1"), ("192.0.2.7", "192.0.2.8")])
def test_two_callers(one: str, other: str) -> None:
    """Other sites, and other IPv4 addresses, are others."""
    assert identity(read_address(one)) != identity(read_address(other))


def test_nobody_is_in_a_network() -> None:
    """An address that is not known is not allowed."""
    assert not within(None, PROXIES)
    assert within(read_address("::ffff:10.1.2.3"), PROXIES)
    assert not within(read_address("192.0.2.7"), PROXIES)
