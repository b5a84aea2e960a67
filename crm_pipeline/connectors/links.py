"""The ``Link`` header (RFC 8288): where it says the next page is."""

from __future__ import annotations

import re

from crm_pipeline.connectors.base import CrmAnswerError

# Possessive quantifiers: a hostile header of 64 KB costs no more than its length.
_PARAM = re.compile(
    r"""\s*+;\s*+([!#$%&'*+.^_`|~0-9A-Za-z-]++)\s*+(?:=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s",;]*+)))?+"""
)
_TARGET = re.compile(r"[\s,]*+<([^<>]*+)>")
_END = re.compile(r"\s*+(?:,|$)")


def next_link(header: str) -> str | None:
    """Return the target of the first link whose relation is ``next``; None without one.

    Raises:
        CrmAnswerError: the header speaks of a next page and cannot be read.
    """
    position = 0
    while target := _TARGET.match(header, position):
        params: dict[str, str] = {}
        position = target.end()
        while param := _PARAM.match(header, position):
            params.setdefault(param[1].lower(), param[2] or param[3] or "")
            position = param.end()
        end = _END.match(header, position)
        if end is None:
            break
        if "next" in params.get("rel", "").lower().split() and "anchor" not in params:
            return target[1]
        position = end.end()
    if "next" in header[position:].lower():
        raise CrmAnswerError("the Link header cannot be read, and it speaks of a next page")
    return None
