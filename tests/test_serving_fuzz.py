"""Fuzzed from its own description: whatever fits it, or does not, is never answered with a 500."""

from __future__ import annotations

import hypothesis
import pytest
import schemathesis
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
)

from shared.operating import in_thread
from shared.releases import shipped_release
from shared.serving import create_app

PATHS = ("/v1/price", "/v1/chat/completions", "/v1/responses")
OTHERS = ("/v1/models", "/health", "/ready", "/metrics")
FITTING, ODD = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


@pytest.fixture(scope="module")
def operations():
    app = create_app(lambda: shipped_release().open(), log=lambda line: None)
    with in_thread(app) as url:
        described = schemathesis.openapi.from_url(f"{url}/openapi.json")
        found = [result.ok() for result in described.get_all_operations()]
        yield {operation.path: operation for operation in found}


@pytest.mark.parametrize(
    ("path", "mode", "cases"),
    [(path, mode, 60) for path in PATHS for mode in (FITTING, ODD)]
    + [(path, FITTING, 2) for path in OTHERS],
)
def test_the_service_answers_as_it_describes_itself(operations, path, mode, cases):
    """No 500, and no status, type or shape of an answer that the description does not name."""
    statuses = set()

    @hypothesis.seed(42)
    @hypothesis.settings(max_examples=cases, deadline=None, database=None,
                         suppress_health_check=list(hypothesis.HealthCheck))  # fmt: skip
    @hypothesis.given(case=operations[path].as_strategy(generation_mode=mode))
    def answers(case):
        response = case.call(timeout=30)
        statuses.add(response.status_code)
        # A chat may fit the schema and say nothing of any product.
        left_out = [] if path == "/v1/price" else [positive_data_acceptance]
        if response.status_code == 413:  # refused before it was read: neither fits nor does not
            left_out = [positive_data_acceptance, negative_data_rejection]
        case.validate_response(response, excluded_checks=left_out)

    answers()
    assert not any(status >= 500 for status in statuses)
    wanted = 200 if mode is FITTING else 422
    assert wanted in statuses, f"nothing that was sent was answered {wanted}: {statuses}"


def test_all_addresses_are_fuzzed(operations):
    assert set(operations) == {*PATHS, *OTHERS}
