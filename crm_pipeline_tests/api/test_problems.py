"""Problems: texts of all origins are told as sentences."""

from __future__ import annotations

import pytest

from crm_pipeline.api.problems import problem_of
from crm_pipeline.connectors.base import ConnectorError
from crm_pipeline.sync.errors import UnknownContactError


@pytest.mark.parametrize(
    "error, status, told",
    [
        (UnknownContactError("there is no such contact"), 404, "There is no such contact."),
        (
            ConnectorError("the CRM cannot answer now (status 503)"),
            502,
            "The CRM cannot answer now (status 503).",
        ),
        (ConnectorError("auth.username must not hold a colon"), 502, "auth.username must not hold a colon."),
        (ConnectorError("'next' is no link"), 502, "'next' is no link."),
        (RuntimeError("told to nobody"), 500, "Something went wrong here."),
    ],
)
def test_a_detail_is_a_sentence(error: Exception, status: int, told: str) -> None:
    """A capital and a full stop, once; names of settings stay as they are written."""
    problem = problem_of(error)
    assert (problem.status, problem.detail, problem_of(problem).detail) == (status, told, told)
