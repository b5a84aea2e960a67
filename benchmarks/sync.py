"""Pull and apply with all our bookkeeping, against dlt's merge of one table and against the least there is.

    python benchmarks/sync.py [--contacts 100000] [--rounds 3] [first again poll latency counted]

``first`` fills an empty database, ``again`` reads everything once more, ``poll`` asks for what
changed where 1 % did, ``latency`` is a first load from a CRM that takes 50 ms for each answer, and
``counted`` one by the numbers of its pages, a hundred to a page: eight at once, against one by one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests
from rounds import calls, compare, contend, crm, databases

from crm_pipeline_tests.databases import Databases

PULLERS = ("ours", "dlt_merge", "floor")
_SLOW_MS = 50.0


class Stage:
    """Where the contenders find the CRM and their databases."""

    def __init__(self, url: str, databases: Databases, folder: Path, stack: ExitStack) -> None:
        """``stack`` ends the databases."""
        self._url, self._databases, self._folder, self._stack = url, databases, folder, stack
        self._urls: dict[str, str] = {}

    def first(self, name: str) -> dict[str, Any]:
        """A first load, into a database of its own."""
        self._urls[name] = self._stack.enter_context(self._databases.fresh(migrated=False))
        return self._step(name, "first")

    def counted(self, name: str) -> dict[str, Any]:
        """A first load of ours, by so many pages at once."""
        self._urls["ours"] = self._stack.enter_context(self._databases.fresh(migrated=False))
        return self._step("ours", name)

    def again(self, name: str) -> dict[str, Any]:
        """Everything once more; nothing has changed."""
        told = self._step(name, "again")
        if told.get("written"):
            raise RuntimeError(f"{name} wrote {told['written']} rows though nothing had changed")
        return told

    def poll(self, name: str) -> dict[str, Any]:
        """What changed since the last time; 1 % of all."""
        requests.get(self._url.replace("/contacts", f"/bench/change?count={self.changed}"), timeout=60)
        return self._step(name, "poll")

    changed = 0

    def _step(self, name: str, step: str) -> dict[str, Any]:
        calls(self._url)
        told = contend(name, step, self._url, self._urls[name], Path(tempfile.mkdtemp(dir=self._folder)))
        return told | {"calls": calls(self._url)}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="*", default=["first", "again", "poll", "latency", "counted"])
    parser.add_argument("--contacts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--databases", nargs="*", default=["sqlite", "postgresql"])
    said = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crm-bench-")))
        kinds = stack.enter_context(databases(folder, said.databases))
        for kind in said.databases:
            with crm(folder, said.contacts) as url:
                stage = Stage(url, kinds[kind], folder, stack)
                stage.changed = said.contacts // 100
                if {"first", "again", "poll"} & set(said.what):
                    compare(f"{kind}: first load", PULLERS, "dlt_merge", said.rounds, stage.first)
                if "again" in said.what:
                    compare(f"{kind}: everything again", PULLERS, "dlt_merge", said.rounds, stage.again)
                if "poll" in said.what:
                    compare(f"{kind}: poll, 1 % changed", ("ours",), "ours", said.rounds, stage.poll)
            if "latency" in said.what:
                with crm(folder, said.contacts, delay_ms=_SLOW_MS) as url:
                    slow = Stage(url, kinds[kind], folder, stack)
                    title = f"{kind}: first load, {_SLOW_MS:.0f} ms an answer, cursor pages"
                    compare(title, PULLERS, "dlt_merge", said.rounds, slow.first)
            if "counted" in said.what:
                with crm(folder, said.contacts, page=100, delay_ms=_SLOW_MS) as url:
                    slow = Stage(url, kinds[kind], folder, stack)
                    title = f"{kind}: first load, {_SLOW_MS:.0f} ms an answer, counted pages of 100"
                    compare(title, ("eight", "one"), "one", said.rounds, slow.counted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
