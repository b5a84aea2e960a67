"""One contact pushed: nobody is told that an edit reached the CRM when it did not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from crm_pipeline import ExternalCrmService
from crm_pipeline.api.problems import problem_of
from crm_pipeline.settings import load_settings
from crm_pipeline.simulators.generic import CONTACTS_PATH, GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline.store.engine import writing
from crm_pipeline.sync.errors import PushFailedError

ID = "6281100000001@c.us"
PUSHED = "User pushed to external CRM successfully"
NOTHING = "Nothing to push: the CRM has the same values"
READS_CHANGES = "listing: {modified_since: {param: updated_since}}\n"


@pytest.fixture
def crm() -> GenericCrm:
    """A CRM with one contact."""
    crm = GenericCrm()
    crm.create(phone=ID, name="Uji", notes="at first", company="PT Uji")
    return crm


@pytest.fixture
def connected(crm: GenericCrm, engine: Engine, tmp_path: Path) -> Iterator[Connected]:
    """The service between that CRM and an empty database, once pulled."""
    with running(create_app(crm)) as url:
        yield Connected(crm, engine, url + CONTACTS_PATH, tmp_path / "connection.yaml")


class Connected:
    """A service, made with a connection file."""

    def __init__(self, crm: GenericCrm, engine: Engine, url: str, file: Path) -> None:
        """Nothing is opened."""
        self.crm, self.engine, self._url, self._file = crm, engine, url, file
        (self.record_id,) = crm.records

    @contextmanager
    def by(self, rules: str = "") -> Iterator[ExternalCrmService]:
        """What was pulled under these rules."""
        self._file.write_text(READS_CHANGES + rules)
        settings = load_settings(
            external_crm_enabled=True,
            external_crm_api_url=self._url,
            external_crm_api_key=self.crm.options.api_key,
            external_crm_config=self._file,
        )
        with ExternalCrmService(self.engine, settings=settings) as service:
            service.poll_external_crm()
            yield service

    def edit(self, change: str) -> None:
        """Another program writes with plain SQL."""
        with writing(self.engine) as tx:
            tx.execute(text(f"UPDATE contacts SET {change} WHERE id = '{ID}'"))  # noqa: S608 - our own


def refusal(service: ExternalCrmService) -> dict[str, str]:
    """Why a push was refused, told as 422, the field in its text, too."""
    with pytest.raises(PushFailedError) as caught:
        service.push_to_external_crm(ID)
    problem = problem_of(caught.value)
    assert problem.status == 422
    reasons: dict[str, str] = problem.members["reasons"]
    for name, reason in reasons.items():
        assert (reason[1:] if name == "record" else f"{name}: {reason}") in problem.detail
    return reasons


def test_a_deleted_record_is_told_as_such(connected: Connected) -> None:
    """The CRM answers our write with 404; again when it is known, and the contact archived."""
    with connected.by() as service:
        connected.crm.delete(connected.record_id)
        connected.edit("notes = 'typed here'")
        for _ in range(2):
            assert refusal(service) == {"record": "the record was deleted in the CRM"}


def test_an_archived_contact_is_told_as_such(connected: Connected) -> None:
    """Its edit is not written."""
    with connected.by() as service:
        connected.edit("notes = 'typed here', archived_at = updated_at")
        assert refusal(service) == {"record": "the contact is archived"}
    assert connected.crm.records[connected.record_id]["notes"] == "at first"


def test_what_a_rule_leaves_out_is_told_as_such(connected: Connected) -> None:
    """It was not written, though it differs."""
    with connected.by("select: {outward: {instansi: [Another]}}\n") as service:
        connected.edit("notes = 'typed here'")
        assert refusal(service) == {"record": "select.outward leaves the contact out"}


def test_an_edit_the_crm_has_won_over_was_not_pushed(connected: Connected) -> None:
    """Both sides hold the CRM's value: success, without saying that anything was written."""
    with connected.by("merge: {policy: external}\n") as service:
        connected.crm.edit(connected.record_id, notes="theirs")
        connected.edit("notes = 'ours'")
        told = service.push_to_external_crm(ID)
        assert (told["action"], told["message"]) == ("unchanged", NOTHING)
        assert connected.crm.records[connected.record_id]["notes"] == "theirs"
        told = service.push_to_external_crm(ID)  # nobody has edited it since
        assert (told["action"], told["message"]) == ("unchanged", PUSHED)


def test_a_conflict_that_waits_is_told_as_such(connected: Connected) -> None:
    """Nothing is written while nothing else differs; beside another field's edit it is told."""
    waits = {"notes": "waits for a person to settle a conflict"}
    with connected.by("merge: {policy: manual}\n") as service:
        connected.crm.edit(connected.record_id, notes="theirs")
        connected.edit("notes = 'ours'")
        assert refusal(service) == waits
        connected.edit("nama = 'Lain'")
        told = service.push_to_external_crm(ID)
        assert (told["action"], told["message"], told["reasons"]) == ("updated", PUSHED, waits)
    record = connected.crm.records[connected.record_id]
    assert (record["name"], record["notes"]) == ("Lain", "theirs")


def test_a_write_that_the_crm_ignored_is_told_as_such(connected: Connected) -> None:
    """It answers 200 and shows its old value."""
    with connected.by("fields: {notes: {names: [notes], write: ntoes}}\n") as service:
        connected.edit("notes = 'typed here'")
        assert refusal(service) == {"notes": "waits for a person to settle a conflict"}


def test_an_edit_of_what_only_comes_in_is_told_as_such(connected: Connected) -> None:
    """It differs, and no push will write it."""
    with connected.by("fields: {notes: {direction: in}}\n") as service:
        connected.edit("notes = 'typed here'")
        assert refusal(service) == {"notes": "is not written to the CRM"}


def test_a_refused_value_names_its_field(connected: Connected) -> None:
    """By its name in JSON."""
    with connected.by() as service:
        connected.edit("deal_status = 'no such'")
        assert list(refusal(service)) == ["dealStatus"]
