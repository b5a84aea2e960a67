"""Why a CRM refuses a write, in its own codes and field names: nothing else of its words.

CRMs quote what was sent ("contact +62… exists already"), so their texts are not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import orjson

from crm_pipeline.connectors.base import Json, Write

_KEYS = frozenset(
    {"code", "type", "error", "errorCode", "error_code", "field", "path", "param", "property", "attribute"}
)
_CODE_KEYS = frozenset({"code", "errorCode", "error", "category", "requiredGranularScopes"})
_NAME = re.compile(r"[A-Za-z_](?:[A-Za-z_./-]|[0-9](?![0-9]{3})){1,63}")
"""No blank, no at sign, no long run of digits: neither a text nor an address nor a phone number."""
_MOST = 5
_MOST_NODES = 200


def reason(status: Json, body: Json, write: Write) -> str:
    """Text such as ``the CRM does not take it (422: invalid_value, phone)``."""
    sent = {text.casefold() for text in _texts(write.changes)}
    told = dict.fromkeys(name for name in _names(body) if name.casefold() not in sent)
    parts = [str(status)] if isinstance(status, int) else []
    if told:
        parts.append(", ".join(list(told)[:_MOST]))
    return f"the CRM does not take it ({': '.join(parts)})" if parts else "the CRM does not take it"


def codes(body: bytes) -> str:
    """What a refusal names, such as ``MISSING_SCOPES, crm.objects.contacts.write``; empty for nothing."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    names = (value for key, value in leaves(told) if key in _CODE_KEYS and is_code(value))
    return ", ".join(list(dict.fromkeys(names))[:_MOST])


def is_code(value: Json) -> bool:
    """Tell whether a value is a code or a field's name, and no text of a person."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _names(body: Json) -> Iterator[str]:
    for key, value in leaves(body):
        if key in _KEYS and is_code(value):
            yield value


def _texts(changes: Json) -> Iterator[str]:
    return (value for _, value in leaves(changes) if isinstance(value, str))


def leaves(found: Json) -> Iterator[tuple[str, Json]]:
    """Give names and values of a document, level by level, the first so many."""
    nodes: list[tuple[str, Json]] = [("", found)]
    for name, node in nodes:
        if isinstance(node, dict):
            nodes.extend(list(node.items())[: max(0, _MOST_NODES - len(nodes))])
        elif isinstance(node, list):
            nodes.extend((name, item) for item in node[: max(0, _MOST_NODES - len(nodes))])
        else:
            yield name, node
