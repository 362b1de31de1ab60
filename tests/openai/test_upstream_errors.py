"""OpenAI's failures as an operator counts them, and what of OpenAI's error may go into a log line."""

import pytest

from gateway.openai.headers import error_code_of
from gateway.proxy.access_log import level_of_call
from gateway.proxy.metrics import CallMetrics


@pytest.mark.parametrize(
    ("status", "broken", "code", "kind", "level"),
    [
        (429, None, "insufficient_quota", "insufficient_quota", "error"),
        (429, None, "rate_limit_exceeded", "http_429", "info"),
        (429, None, None, "http_429", "info"),
        (429, "upstream_cut", "insufficient_quota", "upstream_cut", "error"),
        (401, None, None, "http_401", "info"),
        (200, "upstream_cut", None, "upstream_cut", "warning"),
        (520, None, "insufficient_quota_x", "http_5xx", "error"),
        (503, None, "CANARY", "http_503", "error"),
    ],
)
def test_kinds(status: int, broken: str | None, code: str | None, kind: str, level: str) -> None:
    metrics = CallMetrics()
    metrics.count_upstream_failure(status, broken, code)
    counted = [sample.labels for sample in metrics.samples() if sample.name == "gateway_upstream_errors_total"]
    assert counted == [(kind,)]
    assert level_of_call(status, broken, code) == level


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{\n  "error": {\n    "message": "x",\n    "code": "insufficient_quota"\n  }\n}\n', "insufficient_quota"),
        (b'{"error":{"code":null}}', None),
        (b'{"error":{"code":429}}', None),
        (b'{"error":{"code":"a prompt with spaces"}}', None),
        (b'{"error":{"code":"' + b"a" * 65 + b'"}}', None),
        (b'{"error":"insufficient_quota"}', None),
        (b'{"code":"insufficient_quota"}', None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_the_code_of_an_error_is_a_word(body: bytes, code: str | None) -> None:
    assert error_code_of(body) == code
