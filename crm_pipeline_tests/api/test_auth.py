"""Keys and secrets: which is right, told in the same time whichever is wrong."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
from pydantic import SecretStr

from crm_pipeline.api.auth import Secrets

KEYS = ("first-key", "a-second-key-that-is-longer", "third")


@pytest.mark.parametrize(
    "presented", [*KEYS, "", "f", "first-ke", "first-key ", "first-kez", "\xff", "x" * 10_000]
)
def test_every_key_is_compared_whole_whichever_is_presented(
    monkeypatch: pytest.MonkeyPatch, presented: str
) -> None:
    """The work is the same: all of them, each as long as the other, by the one function made for it."""
    compared: list[tuple[int, int]] = []
    honest = hmac.compare_digest

    def compare(one: Any, other: Any) -> bool:
        compared.append((len(one), len(other)))
        return honest(one, other)

    secrets = Secrets(map(SecretStr, KEYS))
    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert (secrets.match(presented.encode("latin-1")) is not None) == (presented in KEYS)
    assert compared == [(32, 32)] * len(KEYS)


@pytest.mark.parametrize(
    "presented", [None, 5, True, ["first-key"], {"first-key": 1}, b"first-key", "\ud800"]
)
def test_only_text_can_be_a_secret(presented: object) -> None:
    """A body's member of another kind is wrong, and no failure."""
    assert not Secrets([SecretStr("first-key")]).match_value(presented)
    assert Secrets([SecretStr("first-key")]).match_value("first-key")


def test_no_keys_match_nothing() -> None:
    """Nothing is let in because nothing was set."""
    assert not Secrets([])
    assert Secrets([]).match(b"") is None


def test_a_fingerprint_names_the_key_and_does_not_tell_it() -> None:
    """Short, the same each time, another for each key."""
    secrets = Secrets(map(SecretStr, KEYS))
    found = {secrets.match(key.encode()) for key in KEYS}
    assert len(found) == len(KEYS)
    assert all(name is not None and len(name) == 8 for name in found)
