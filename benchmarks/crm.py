"""The CRM that is measured against: pages made beforehand, so that it costs next to nothing to be asked.

It lists contacts by page number or by cursor, says which changed since a time, takes batches of
updates, and counts what it is asked. Each answer may be held back for some milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import orjson
import uvicorn
from starlette.types import Receive, Scope, Send

from crm_pipeline.simulators.contacts import generate_contacts, iso


class Crm:
    """Contacts in pages that are bytes already."""

    def __init__(self, contacts: int, page: int, delay: float) -> None:
        """``delay`` in seconds, for each answer."""
        self._delay = delay
        self._size = page
        self._calls: Counter[str] = Counter()
        self._pages: list[bytes] = []
        self._changed: list[bytes] = []
        self._total = contacts
        some: list[dict[str, Any]] = []
        self._first: list[dict[str, Any]] = []
        for contact in generate_contacts(contacts):
            some.append(contact)
            if len(some) == page:
                self._keep(some)
                some = []
        if some:
            self._keep(some)
        self._pages.append(b"[]")

    def _keep(self, contacts: list[dict[str, Any]]) -> None:
        if not self._pages:
            self._first = contacts
        self._pages.append(bytes(memoryview(orjson.dumps(contacts))))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        asked = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
        answer = self._answer(scope["path"], asked, body)
        if self._delay and not scope["path"].startswith("/bench"):
            await asyncio.sleep(self._delay)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _answer(self, path: str, asked: dict[str, str], body: bytes) -> bytes:
        if path == "/bench/calls":
            told, self._calls = orjson.dumps(self._calls), Counter()
            return told
        if path == "/bench/change":
            return self._change(int(asked["count"]))
        if path == "/contacts/batch":
            self._calls["batch"] += 1
            rows = orjson.loads(body)["records"]
            results = [{"success": True, "record": row} for row in rows]
            return orjson.dumps({"results": results})
        self._calls["list"] += 1
        pages = self._changed if "updated_since" in asked else self._pages
        number = int(asked.get("page") or asked.get("cursor") or 1)
        records = pages[number - 1] if number <= len(pages) else b"[]"
        last = max(1, len(pages) - 1)
        more = b'"%d"' % (number + 1) if number < last else b"null"
        return b'{"records":%s,"next_cursor":%s,"total_pages":%d,"total":%d}' % (
            records,
            more,
            last,
            self._total,
        )

    def _change(self, count: int) -> bytes:
        """Let the first so many contacts be the ones that changed just now."""
        now = iso(datetime.now(UTC))
        found: list[dict[str, Any]] = []
        for page in self._pages:
            if len(found) >= count:
                break
            found += orjson.loads(page)
        changed = [{**each, "notes": f"changed {now}", "updated_at": now} for each in found[:count]]
        parts = [changed[start : start + self._size] for start in range(0, len(changed), self._size)]
        self._changed = [*(orjson.dumps(part) for part in parts), b"[]"]
        return b"{}"


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--contacts", type=int, default=100_000)
    parser.add_argument("--page", type=int, default=1000)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    said = parser.parse_args()
    crm = Crm(said.contacts, said.page, said.delay_ms / 1000)
    uvicorn.run(crm, port=said.port, log_level="warning", access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
