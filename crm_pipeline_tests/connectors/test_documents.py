"""Answers read as JSON, and values found in them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline.connectors.base import CrmAnswerError
from crm_pipeline.connectors.documents import dig, document, merged, nest, says_failure
from crm_pipeline.connectors.session import Answer


def read(body: bytes, content_type: str | None = "application/json", depth: int = 8) -> Any:
    """Read a body as a document."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    return document(Answer(200, headers, body, "http://crm/x"), depth)


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "application/vnd.api+json", "text/json", None]
)
def test_json_types_are_read(content_type: str | None) -> None:
    """JSON by any of its names, or without one, is read."""
    assert read(b'{"a":1}', content_type) == {"a": 1}


@pytest.mark.parametrize(
    "body,content_type,reason",
    [
        (b"", "application/json", "empty"),
        (b" \n", "application/json", "empty"),
        (b"<html>login</html>", "text/html; charset=utf-8", "login page"),
        (b'{"a":1}', "text/plain", "text/plain, not JSON"),
        (b'{"a":1}', "phone +62 811", "something else, not JSON"),
        (b'{"a":[1,2', "application/json", "only a part"),
        (b"<html>", "application/json", "not JSON"),
        (b'{"a":NaN}', "application/json", "not JSON"),
        (b'{"a":Infinity}', "application/json", "not JSON"),
        (b'{"a":NaN,"b":"\\ud800"}', "application/json", "not JSON"),
        (b'"\\ud800"' + b"[" * 100_000, "application/json", "not JSON"),
        (b"[" * 100_000, "application/json", "not JSON"),
        (b"[" * 9 + b"]" * 9, "application/json", "deeper than 8"),
        (b'{"a":' * 9 + b"1" + b"}" * 9, "application/json", "deeper than 8"),
    ],
)
def test_what_is_no_document_is_told(body: bytes, content_type: str, reason: str) -> None:
    """Each wrong answer has its plain reason, and nothing of the body in it or behind it."""
    with pytest.raises(CrmAnswerError, match=reason) as caught:
        read(body, content_type)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_allowed_depth_is_allowed() -> None:
    """Nesting up to the limit is no error."""
    assert read(b"[" * 8 + b"]" * 8) is not None


@pytest.mark.parametrize(
    "body,value",
    [
        (b'{"a":"x\\ud800y","b":2}', {"a": "x\ud800y", "b": 2}),
        (b'{"a":"x\xffy","b":2}', {"a": "x\udcffy", "b": 2}),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        (b'{"a":18446744073709551615}', {"a": 18446744073709551615}),
    ],
)
def test_odd_characters_are_kept(body: bytes, value: Any) -> None:
    """A lone surrogate, a wrong byte or a byte order mark does not cost the whole page."""
    assert read(body) == value


@pytest.mark.parametrize(
    "path,value",
    [
        ("a", {"b": [{"c": 1}]}),
        ("a.b.0.c", 1),
        ("a.b.1", None),
        ("a.b.x", None),
        ("a.b.0.c.d", None),
        ("@odata.nextLink", "here"),
        ("nothing", None),
    ],
)
def test_dig(path: str, value: Any) -> None:
    """Dotted paths walk objects and lists; a key with a dot of its own is found whole."""
    assert dig({"a": {"b": [{"c": 1}]}, "@odata.nextLink": "here"}, path) == value


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_dig_never_fails(found: Any) -> None:
    """A path into anything is a value or None."""
    dig(found, "a.0.b")


def test_nest() -> None:
    """A value is wrapped along a path, and as it is without one."""
    assert nest("data.attributes", 1) == {"data": {"attributes": 1}}
    assert nest(None, 1) == 1


def test_merged_goes_deep_and_replaces_lists() -> None:
    """Objects are merged, lists and values replaced, and neither input is changed."""
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 1, "c": {"z": 1}}
    changes = {"a": {"y": [3]}, "b": None, "c": 5, "d": {"n": 1}}
    assert merged(base, changes) == {"a": {"x": 1, "y": [3]}, "b": None, "c": 5, "d": {"n": 1}}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 1, "c": {"z": 1}}


@pytest.mark.parametrize(
    "body,failed",
    [
        ({"success": False}, True),
        ({"ok": False}, True),
        ({"error": "no"}, True),
        ({"error": {"code": "x"}, "data": []}, True),
        ({"errors": [{"message": "x"}]}, True),
        ({"status": "error", "message": "x"}, True),
        ({"success": True, "error": None, "errors": []}, False),
        ({"status": "error"}, False),
        ({"status": "lost", "message": "x"}, False),
        ({"records": []}, False),
        ([{"error": "x"}], False),
        (None, False),
    ],
)
def test_failures_told_in_the_body(body: Any, failed: bool) -> None:  # noqa: FBT001
    """A body may say that it failed although its status says success."""
    assert says_failure(body) is failed
