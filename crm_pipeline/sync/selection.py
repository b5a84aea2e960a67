"""Selective sync: rules on contact fields decide what takes part. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crm_pipeline.contact import NEW_DEAL_STATUS
from crm_pipeline.sync.coerce import Value
from crm_pipeline.sync.mapping import Values


def takes_part(rules: Mapping[str, Sequence[Value]], said: Values, known: Values | None = None) -> bool:
    """Whether values satisfy every rule.

    A field that is not said counts with what is known of the contact; a contact nobody
    knows yet would be a prospect.
    """
    if not rules:
        return True
    before = known if known is not None else {"deal_status": NEW_DEAL_STATUS}
    return all(said.get(name, before.get(name)) in allowed for name, allowed in rules.items())
