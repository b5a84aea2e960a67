"""Whatever the OpenAPI document allows, or just does not: answered as it says, and never with a 500."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from crm_pipeline.api.openapi import document
from crm_pipeline.api.routes import ROUTES
from crm_pipeline.connection import Webhook
from crm_pipeline_tests.api.served import KEY, PATIENCE, SECRET, Served, serving
from crm_pipeline_tests.databases import SqliteDatabases

DOCUMENT = document(ROUTES, Webhook(), keyed=True)
CASES = [
    (path, method, mode)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or operation["security"]  # nothing about the others could be wrong
]
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
UNAVAILABLE = 503
"""Here: a fetch without Dagster, as documented. It is no failure, the first of the checks."""


@pytest.fixture(scope="module")
def quick(sqlite_databases: SqliteDatabases) -> Iterator[Served]:
    """An API that no limit slows."""
    with sqlite_databases.fresh() as url, serving(database_url=url) as served:
        yield served


@pytest.mark.parametrize("path, method, mode", CASES)
def test_it_answers_as_described(quick: Served, path: str, method: str, mode: GenerationMode) -> None:
    """Requests made from the document, right ones and wrong ones, with a key and a secret that are right."""
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][method.upper()]

    @settings(
        max_examples=10,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), proved=st.booleans())
    def play(case: Case[Any], *, proved: bool) -> None:
        if proved:
            _prove(case.body)
        answer = case.call(
            base_url=quick.url, session=quick.session, headers={"X-API-Key": KEY}, timeout=PATIENCE
        )
        case.validate_response(answer, checks=CHECKS[answer.status_code == UNAVAILABLE :])

    play()


def _prove(body: Any) -> None:
    """Put the right secret into a webhook."""
    for each in body if isinstance(body, list) else [body]:
        if isinstance(each, dict):
            each["secret"] = SECRET
