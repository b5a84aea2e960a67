"""The methods of the integration guide, on a CRM on a socket and on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from crm_pipeline import ExternalCrmService
from crm_pipeline.connectors.base import ConnectorSetupError
from crm_pipeline.settings import PushMode, load_settings
from crm_pipeline.simulators.generic import CONTACTS_PATH, GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline.status import StatusReader
from crm_pipeline.store.engine import writing
from crm_pipeline.sync.errors import DisabledError, TooManyDeletesError, UnknownContactError

FIRST, SECOND = "6281100000001@c.us", "6281100000002@c.us"


@pytest.fixture
def crm() -> GenericCrm:
    """A CRM with 20 contacts and one we know."""
    crm = GenericCrm.seeded(20)
    crm.create(phone=FIRST, notes="at first")
    return crm


@pytest.fixture
def service(crm: GenericCrm, engine: Engine) -> Iterator[ExternalCrmService]:
    """The service between that CRM and an empty database."""
    with running(create_app(crm)) as url:
        settings = load_settings(
            external_crm_enabled=True,
            external_crm_api_url=f"{url}{CONTACTS_PATH}",
            external_crm_api_key=crm.options.api_key,
        )
        with ExternalCrmService(engine, settings=settings, run_id="run-1") as service:
            yield service


def ours(crm: GenericCrm) -> str:
    """The id of the record we know."""
    return next(key for key, record in crm.records.items() if record["phone"] in {FIRST, SECOND})


def edit(engine: Engine, statement: str) -> None:
    """Another program writes with plain SQL."""
    with writing(engine) as tx:
        tx.execute(text(statement))


def test_a_poll_says_what_it_applied(service: ExternalCrmService) -> None:
    """The guide's answer: how many records, which contacts, which run; a second one has nothing to do."""
    first = service.poll_external_crm()
    assert (first["success"], first["syncedRecords"], first["runId"]) == (True, 21, "run-1")
    assert (first["counts"]["created"], len(first["userIds"]), FIRST in first["userIds"]) == (21, 21, True)
    second = service.poll_external_crm()
    assert (second["syncedRecords"], second["userIds"]) == (0, [])


@pytest.mark.parametrize("spelling", [FIRST, "+62 811-0000-0001", "0811 0000 0001"])
def test_a_contact_is_pushed_by_any_spelling_of_its_id(
    service: ExternalCrmService, crm: GenericCrm, engine: Engine, spelling: str
) -> None:
    """Its change is in the CRM; pushed again, nothing is left to write."""
    service.poll_external_crm()
    edit(engine, f"UPDATE contacts SET notes = 'typed here' WHERE id = '{FIRST}'")  # noqa: S608 - our own
    answer = service.push_to_external_crm(spelling)
    assert answer == {
        "success": True,
        "userId": FIRST,
        "message": "User pushed to external CRM successfully",
        "externalId": ours(crm),
        "action": "updated",
    }
    assert crm.records[ours(crm)]["notes"] == "typed here"
    assert service.push_to_external_crm(spelling)["action"] == "unchanged"


def test_a_contact_is_pushed_by_an_earlier_number(service: ExternalCrmService, crm: GenericCrm) -> None:
    """Who still has the old number reaches the same contact, under its id of today."""
    service.poll_external_crm()
    crm.edit(ours(crm), phone=SECOND)
    service.poll_external_crm()
    answer = service.push_to_external_crm("081100000001")
    assert (answer["userId"], answer["externalId"]) == (SECOND, ours(crm))


def test_a_contact_stored_in_an_odd_spelling_is_found(service: ExternalCrmService, engine: Engine) -> None:
    """As another program wrote it, and in every other spelling once a sync has met it."""
    odd = "+62 811-0000-0009"
    edit(engine, f"INSERT INTO contacts (id) VALUES ('{odd}')")  # noqa: S608 - our own
    service.sync()
    for spelling in (odd, "6281100000009@c.us", "081100000009"):
        assert service.push_to_external_crm(spelling)["userId"] == odd
        assert service.history(spelling) == service.history(odd)
    assert [change.rule for change in service.history(odd)] == ["created in the CRM"]


def test_nothing_is_pushed_while_pushing_is_off(
    service: ExternalCrmService, crm: GenericCrm, engine: Engine
) -> None:
    """Neither all nor one; the CRM keeps what it has."""
    service.poll_external_crm()
    edit(engine, f"UPDATE contacts SET notes = 'typed here' WHERE id = '{FIRST}'")  # noqa: S608 - our own
    off = service.settings.model_copy(update={"external_crm_push": PushMode.OFF})
    with ExternalCrmService(engine, settings=off) as careful:
        for push in (careful.push, lambda: careful.push_to_external_crm(FIRST)):
            with pytest.raises(DisabledError, match="EXTERNAL_CRM_PUSH is off"):
                push()
    assert crm.records[ours(crm)]["notes"] == "at first"


def test_webhooks_are_applied_where_the_crm_cannot_be_called(engine: Engine) -> None:
    """Without a key a webhook still becomes a contact; only a call needs it, and says so."""
    settings = load_settings(external_crm_enabled=True, external_crm_api_url="https://crm.example/contacts")
    with ExternalCrmService(engine, settings=settings) as service:
        assert service.process_webhook({"phone": FIRST, "name": "Sinta"})["action"] == "created"
        assert service.apply().counts.seen == 0
        with pytest.raises(ConnectorSetupError, match="EXTERNAL_CRM_API_KEY"):
            service.pull()
        assert service.get_status()["lastError"]["step"] == "pull"


def test_an_unknown_contact_is_not_made(service: ExternalCrmService, crm: GenericCrm) -> None:
    """An error that does not repeat the number; the CRM is not written to."""
    with pytest.raises(UnknownContactError, match=r"^there is no such contact$"):
        service.push_to_external_crm("6281199999999")
    assert len(crm.records) == 21


def test_polling_is_switched_and_everybody_sees_it(service: ExternalCrmService, engine: Engine) -> None:
    """The flag is in the database: another process, which need not reach the CRM, reads the same."""
    other = StatusReader(engine, load_settings())
    assert (other.get_status()["polling"], other.polling) == ("inactive", False)
    service.start_polling()
    assert (other.get_status()["polling"], other.polling) == ("active", True)
    service.stop_polling()
    assert (other.get_status()["polling"], other.polling) == ("inactive", False)


def test_a_sync_archives_many_only_when_it_is_allowed_to(
    service: ExternalCrmService, crm: GenericCrm
) -> None:
    """The guard stops a sync as it stops an apply; told so, the same sync goes through."""
    service.poll_external_crm()
    for record_id in list(crm.records)[:15]:
        crm.delete(record_id)
    with pytest.raises(TooManyDeletesError):
        service.sync()
    _, applied, _ = service.sync(allow_deletes=True)
    assert applied.counts.updated == 15


def test_dismissing_says_how_many_there_were(service: ExternalCrmService, crm: GenericCrm) -> None:
    """Numbers that are none, or none any more, do not count."""
    for number in (7, 8):
        crm.create(phone=f"628110000000{number}", status="no such status")
    service.poll_external_crm()
    ids = [reject.id for reject in service.rejects()]
    assert (service.dismiss([*ids, 999]), service.dismiss(ids), service.dismiss([])) == (2, 0, 0)
    assert (service.rejects(), service.evidence().health.outcomes["rejected"]) == ([], 0)
