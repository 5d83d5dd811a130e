"""Requests made from the OpenAPI document itself, right ones and wrong ones: none makes the service fail."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from fake_gateway import Site, finished, plan_of
from hypothesis import HealthCheck, settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    schemathesis = pytest.importorskip("schemathesis")

SITE = Site(plan_of(Path()))
SITE.gateway.kept = {"0": finished(), "1": None}
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", SITE.app)
# A second an operation.
NUM_EXAMPLES = 40


def is_endless(context):
    """Whether an operation streams for as long as somebody listens."""
    answers = context.operation.definition.raw.get("responses", {}).values()
    return any("text/event-stream" in answer.get("content", {}) for answer in answers)


@SCHEMA.exclude(is_endless).parametrize()
@settings(max_examples=NUM_EXAMPLES, suppress_health_check=list(HealthCheck))
def test_no_request_makes_the_service_fail(case):
    """Whatever is sent, the answer is one of those that the document names, in words; 500 would be a bug of ours."""
    response = case.call()

    assert response.status_code < 500, f"{case.as_curl_command()}: {response.text}"
    named = {str(status) for status in case.operation.definition.raw["responses"]} | {"404", "405"}
    assert str(response.status_code) in named, f"{case.as_curl_command()}: {response.status_code} {response.text}"
    if response.status_code >= 400:
        told = response.json()
        assert told["error" if case.path.startswith("/v2") else "detail"]


def test_the_document_has_both_protocols():
    """What is not in the document is not tested above."""
    paths = set(SCHEMA.raw_schema["paths"])
    assert {"/v1/detect", "/v1/tickets", "/v2", "/v2/models/{model_name}/infer", "/v2/repository/index"} <= paths
