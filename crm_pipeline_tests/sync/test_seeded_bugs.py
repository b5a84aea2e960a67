"""The proof, proved: bugs put in on purpose are caught by the model.

Each bug breaks one thing the design rests on. A model that lets one through proves nothing
about it. What the design cannot have is not listed: shadows, contact, history and outcome
are one transaction, so that half of it cannot be saved; conflicts are stored when the record
is applied, before any intent exists.
"""

# ruff: noqa: SLF001 - a bug is put where it would be made, inside
from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.engine import Engine

from crm_pipeline.store import contacts, intents, landing, ledger, links, state, tables
from crm_pipeline.sync import absence, confirm, intend, look, merge, plan, pull, push, recovery, settle
from crm_pipeline.sync.arrivals import tombstone
from crm_pipeline_tests.sync.two_sides import Narrow, Wide

Patch = Callable[[pytest.MonkeyPatch], None]
nothing: Callable[..., None] = lambda *_args, **_kwargs: None  # noqa: E731 - what a bug does


def window_starts_too_late(patch: pytest.MonkeyPatch) -> None:
    """A cursor one too far: the next window begins after the watermark instead of before it."""
    fresh = pull._fresh

    def late(context: Any, stored: Any) -> Any:
        here = fresh(context, stored)
        if here.since is not None:
            here.since += timedelta(minutes=5, milliseconds=1) * 2
        return here

    patch.setattr(pull, "_fresh", late)


def watermark_before_the_page(patch: pytest.MonkeyPatch) -> None:
    """The watermark moves first, and the page that was read is lost with the crash."""
    land = landing.land

    def too_late(tx: Any, name: str, arrivals: Any, run_id: str) -> Any:
        arrived = list(arrivals)
        counts = land(tx, name, arrived[:-1], run_id)
        moments = [each.modified_at for each in arrived if each.modified_at is not None]
        if moments:
            state.save(tx, name, watermark=max(moments) + timedelta(hours=1))
        return counts

    patch.setattr(landing, "land", too_late)


def shadows_not_saved(patch: pytest.MonkeyPatch) -> None:
    """What the two sides held at the last agreement is forgotten."""
    for name in ("update", "note_agreed", "note_edits"):
        patch.setattr(links, name, nothing)


def writes_although_equal(patch: pytest.MonkeyPatch) -> None:
    """Every value counts as changed."""
    planned: Callable[..., Any] = plan.plan_write

    def blindly(*arguments: Any) -> Any:
        *before, link, _dirty, known = arguments
        mapping, (values, _) = before[0], before[-1]
        return planned(*before, link, plan.to_write(mapping, values, None, ()), known)

    patch.setattr("crm_pipeline.sync.intend.plan_write", blindly)
    whole_table = sa.select(tables.contacts.c.id).where(tables.contacts.c.id > sa.bindparam("after"))
    patch.setattr(contacts, "_TO_PUSH", whole_table.order_by(tables.contacts.c.id))


def last_writer_wins_silently(patch: pytest.MonkeyPatch) -> None:
    """The CRM's value is taken whatever the contact holds."""

    def take(_state: Any, _rules: Any, external: Any, _internal: Any) -> merge.Decision:
        return merge.Decision(merge.Verdict.EXTERNAL_CHANGE, external, external, external)

    patch.setattr(merge, "_conflict", take)


def conflicts_not_written(patch: pytest.MonkeyPatch) -> None:
    """The loser of a conflict is kept nowhere."""
    patch.setattr(ledger, "write_conflicts", nothing)


def absence_is_delete(patch: pytest.MonkeyPatch) -> None:
    """What a listing leaves out is taken for deleted without asking."""

    def believe(context: Any, external_ids: Any) -> None:
        with context.write() as tx:
            lost = [tombstone(each, context.clock()) for each in external_ids]
            landing.land(tx, context.name, lost, context.run_id)

    patch.setattr(absence, "ask", believe)


def trusts_the_payload(patch: pytest.MonkeyPatch) -> None:
    """A hint's own content is applied without reading the record back."""
    patch.setattr(Narrow, "read_back", False)


def no_intent(patch: pytest.MonkeyPatch) -> None:
    """CRM writes are made without being stored before."""
    patch.setattr(intents, "store", nothing)


def intents_forgotten_after_a_crash(patch: pytest.MonkeyPatch) -> None:
    """Nobody knows of a write that was sent before the crash: its echo looks like somebody's edit."""
    patch.setattr(intents, "open_of", lambda *_args: {})

    def forget(context: Any) -> int:
        with context.write() as tx:
            waiting = intents.all_open(tx, context.name)
            intents.close(tx, [(each.id, "superseded") for each in waiting], context.clock())
        return 0

    patch.setattr(push, "recover", forget)


def created_without_looking(patch: pytest.MonkeyPatch) -> None:
    """A create of unknown end is simply made again."""

    def close(context: Any, waiting: Any) -> int:
        recovery._supersede(context, waiting)
        return 0

    patch.setattr(recovery, "_find_created", close)
    patch.setattr(look.Look, "at", nothing)


def single_base(patch: pytest.MonkeyPatch) -> None:
    """One base for both sides: what the CRM made of our value stands for ours as well."""
    written = confirm.Confirmation._written

    def one_base(self: Any, planned: Any, result: Any, external_id: str) -> Any:
        outcome = written(self, planned, result, external_id)
        for link in [*self._links, *self._new_links]:
            link.internal_shadow = dict(link.external_shadow)
        return outcome

    patch.setattr(confirm.Confirmation, "_written", one_base)


def overwrites_what_it_has_not_seen(patch: pytest.MonkeyPatch) -> None:
    """A push does not look before it writes."""
    patch.setattr(look.Look, "at", nothing)


def does_not_say_what_it_expects(patch: pytest.MonkeyPatch) -> None:
    """A CRM that could refuse to overwrite news is not told what we have seen."""
    intended = intend._Planner._intended

    def blind(self: Any, planned: Any) -> Any:
        made = intended(self, planned)
        write = type(made.write)(made.write.key, made.write.external_id, made.write.changes)
        return intend.IntendedWrite(made.intent, write, made.full_keys)

    patch.setattr(intend._Planner, "_intended", blind)


def echo_is_news(patch: pytest.MonkeyPatch) -> None:
    """Our own write coming back is taken for somebody's edit."""
    patch.setattr("crm_pipeline.sync.merge.looks_rewritten", lambda *_: False)
    patch.setattr(confirm.Confirmation, "_held_now", lambda *_: {})


def edits_not_noticed(patch: pytest.MonkeyPatch) -> None:
    """Contacts that changed are marked as told without being told."""
    patch.setattr("crm_pipeline.store.contacts.mark_to_push", nothing)
    patch.setattr(settle.Settler, "_note_edits", lambda *_: False)


BUGS: tuple[Patch, ...] = (
    window_starts_too_late,
    watermark_before_the_page,
    shadows_not_saved,
    writes_although_equal,
    last_writer_wins_silently,
    conflicts_not_written,
    absence_is_delete,
    trusts_the_payload,
    no_intent,
    intents_forgotten_after_a_crash,
    created_without_looking,
    single_base,
    overwrites_what_it_has_not_seen,
    does_not_say_what_it_expects,
    echo_is_news,
    edits_not_noticed,
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_bug_can_be_put_in(bug: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it breaks is still there under its name: the long check below must not find out last."""
    bug(monkeypatch)


@pytest.mark.deep
@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_the_model_catches(bug: Patch, sqlite_quick_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of the narrow or the wide model fails while the bug is in: they take turns, 100 runs each."""
    bug(monkeypatch)
    found: BaseException | None = None
    for model in [Narrow, Wide] * 10:
        machine = type("Seeded", (model,), {"engine": sqlite_quick_engine})
        chosen = settings(
            stateful_step_count=model.steps,
            max_examples=100,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            database=None,
        )
        try:
            run_state_machine_as_test(machine, settings=chosen)
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - any failure is a catch
            found = error
            break
    assert found is not None, f"{bug.__name__} was not caught"
