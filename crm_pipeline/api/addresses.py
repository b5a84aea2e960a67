"""Addresses: who is at the other end, past proxies that are trusted, and who may be."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_IPV6_SITE = 64
"""Bits of an IPv6 address that say whose it is; the others its owner chooses at will."""


@lru_cache(maxsize=4096)
def read_address(text: str) -> Address | None:
    """An address as text, with or without a port; IPv4 written as IPv6 is IPv4. None for anything else."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def client_address(
    peer: str | None, forwarded: Iterable[str], trusted: Collection[Network]
) -> Address | None:
    """Who sent a request: the nearest address that is not a trusted proxy.

    Args:
        peer: address of the connection.
        forwarded: values of ``X-Forwarded-For``, in order; believed from right to left, as far
            as trusted proxies wrote it. Everything before may be the client's invention.
        trusted: networks of proxies.
    """
    address = read_address(peer) if peer else None
    if not trusted:
        return address
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    while address is not None and hops and within(address, trusted):
        hop = read_address(hops.pop())
        if hop is None:
            break
        address = hop
    return address


def within(address: Address | None, networks: Collection[Network]) -> bool:
    """Whether an address lies in one of these networks."""
    return address is not None and any(address in network for network in networks)


@lru_cache(maxsize=4096)
def identity(address: Address | None) -> str:
    """The name one caller is counted under: all of an IPv6 site is one caller."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_SITE), strict=False))
    return str(address)
