"""Two-way sync between an organisation's own contacts and an external CRM."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crm_pipeline.service import ExternalCrmService

__version__ = "0.1.0"
__all__ = ["ExternalCrmService", "__version__"]


def __getattr__(name: str) -> object:
    """Load the service only when somebody asks for it: the command line must start fast."""
    if name == "ExternalCrmService":
        return importlib.import_module("crm_pipeline.service").ExternalCrmService
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
