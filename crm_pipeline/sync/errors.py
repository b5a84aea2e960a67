"""What can go wrong in a sync, for callers to tell apart."""

from __future__ import annotations

from collections.abc import Mapping


class SyncError(Exception):
    """A step of the sync failed. The text carries no secret and no personal data."""


class BusyError(SyncError):
    """Another worker holds the connection."""


class LeaseLostError(SyncError):
    """This worker was thought dead and another has taken over: nothing more may be written."""


class DisabledError(SyncError):
    """What was asked for is switched off by a setting."""


class UnknownContactError(SyncError):
    """There is no such contact, and none is made."""


class PushFailedError(SyncError):
    """The CRM did not take a contact, or was not told of it."""

    def __init__(self, reasons: Mapping[str, str], *, refused: bool) -> None:
        """Say why.

        Args:
            reasons: for each field (or ``record``), why it was not written.
            refused: repeating would not help, as the CRM refuses this content or cannot be told it.
        """
        told = (reason if name == "record" else f"{name}: {reason}" for name, reason in reasons.items())
        super().__init__("; ".join(told) or "the contact was not written to the CRM")
        self.reasons = dict(reasons)
        self.refused = refused


class OutdatedDatabaseError(SyncError):
    """The database has not been brought to the shape this version needs."""


class TooManyDeletesError(SyncError):
    """More contacts would be archived than one run may; nothing of it was done."""


class UnknownConflictError(SyncError):
    """There is no such open conflict."""


class RecordRejected(Exception):  # noqa: N818 - a verdict on one record, not a failure of ours
    """A record cannot become a contact, or a contact cannot be written to the CRM.

    Raise it from a mapping hook to reject a record with reasons of your own.
    """

    def __init__(self, reasons: dict[str, str], contact_id: str | None = None) -> None:
        """Say why.

        Args:
            reasons: for each field (or ``record``), what is wrong with its value.
            contact_id: the contact the record claims to be, where that is the trouble.
        """
        super().__init__("; ".join(f"{field}: {reason}" for field, reason in reasons.items()))
        self.reasons = reasons
        self.contact_id = contact_id
