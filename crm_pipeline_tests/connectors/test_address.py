"""The CRM's address: credentials go nowhere else, and an id is one path segment."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline.connectors.address import Address, UnaddressableError
from crm_pipeline.connectors.base import ConnectorSetupError, CrmAnswerError

HERE = "https://crm.example:8443/api/contacts"
ADDRESS = Address(HERE)


@pytest.mark.parametrize(
    "link,url",
    [
        ("https://crm.example:8443/api/contacts?page=2", "https://crm.example:8443/api/contacts?page=2"),
        ("HTTPS://CRM.Example:8443/other", "https://CRM.Example:8443/other"),
        ("/api/contacts?cursor=a%2Fb", "https://crm.example:8443/api/contacts?cursor=a%2Fb"),
        ("?page=2&path=../x", "https://crm.example:8443/api/contacts?page=2&path=../x"),
        ("contacts?page=2", "https://crm.example:8443/api/contacts?page=2"),
    ],
)
def test_links_within_the_origin_are_followed(link: str, url: str) -> None:
    """Absolute and relative links that stay with the CRM resolve against the page they came from."""
    assert ADDRESS.follow(f"{HERE}?page=1", link) == url


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example/api/contacts",
        "https://crm.example/api/contacts",
        "https://crm.example:443/x",
        "http://crm.example:8443/x",
        "https://crm.example.evil.tld:8443/x",
        "https://crm.example:8443@evil.example/x",
        "https://user:pass@crm.example:8443/x",
        "https://crm.example:8443\\@evil.example/x",
        "//evil.example/x",
        "//crm.example:8443/x",
        "\\\\evil.example/x",
        "/\\evil.example/x",
        "../admin",
        "/api/../admin",
        "/api/%2e%2E/admin",
        "/api/.%2e/admin?x=1",
        "https://crm.example:8443/api/../admin",
        "https://crm.example:8443 .evil.example/",
        "https://crm.example:8443\t@evil.example/",
        "https://[::1/x",
        "https://crm.example:port/x",
        "ftp://crm.example:8443/x",
        "javascript:alert(1)",
    ],
)
def test_links_that_leave_are_refused(link: str) -> None:
    """Another host, port or scheme, a user name, a climb or anything odd is refused without repeating it."""
    with pytest.raises(CrmAnswerError) as caught:
        ADDRESS.follow(HERE, link)
    assert link not in str(caught.value)


@given(st.text(alphabet=st.sampled_from("https:/\\@.?#%2e[]:0-9evilcrm \t\n"), max_size=40))
def test_whatever_is_followed_stays_home(link: str) -> None:
    """No link, however made, leads requests to another host."""
    try:
        url = ADDRESS.follow(HERE, link)
    except CrmAnswerError:
        return
    prepared = urlsplit(str(requests.Request("GET", url).prepare().url))
    assert (prepared.scheme, prepared.hostname, prepared.port) == ("https", "crm.example", 8443)
    assert prepared.username is None


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])))
def test_an_id_is_one_segment(external_id: str) -> None:
    """On the wire an id is one segment of the path, and reads back as it was."""
    try:
        url = ADDRESS.at("/{id}", external_id)
    except UnaddressableError:
        assert external_id in {".", ".."}
        return
    prepared = urlsplit(str(requests.Request("GET", url).prepare().url))
    base, _, segment = prepared.path.rpartition("/")
    assert (base, unquote(segment), prepared.query) == ("/api/contacts", external_id, "")


@pytest.mark.parametrize("external_id", ["", ".", "..", "\ud800"])
def test_ids_no_segment_can_carry_are_refused(external_id: str) -> None:
    """Dots cannot be hidden from servers that decode first: such ids are not sent at all."""
    with pytest.raises(UnaddressableError):
        ADDRESS.at("/{id}", external_id)


@pytest.mark.parametrize(
    "base,path,url",
    [
        ("https://crm.example/api", "", "https://crm.example/api"),
        ("https://crm.example/api/", "/x", "https://crm.example/api/x"),
        ("https://crm.example/api", "x", "https://crm.example/api/x"),
        ("https://crm.example", "/x?view=all", "https://crm.example/x?view=all"),
        ("https://münchen.example/api", "", "https://xn--mnchen-3ya.example/api"),
    ],
)
def test_paths_are_below_the_base(base: str, path: str, url: str) -> None:
    """A path is joined with one slash, whatever slashes were written."""
    assert Address(base).at(path) == url


@pytest.mark.parametrize("base", ["", "crm.example/api", "/api", "https://", "https://user@crm.example/"])
def test_no_base_is_a_setup_error(base: str) -> None:
    """A connection without a usable URL names the setting."""
    with pytest.raises(ConnectorSetupError, match="EXTERNAL_CRM_API_URL"):
        Address(base)
