"""Routing: known methods and paths go where they should, everything else nowhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai.routing import CATALOGUE, match

KNOWN = [
    ("POST", "/v1/chat/completions", "chat", "/chat/completions", None),
    ("POST", "/v1/chat/completions?api-version=1", "chat", "/chat/completions?api-version=1", None),
    ("POST", "/v1/completions", "completions", "/completions", None),
    ("POST", "/v1/responses", "responses", "/responses", None),
    ("POST", "/v1/responses/compact", "responses.compact", "/responses/compact", None),
    ("POST", "/v1/responses/input_tokens", "responses.input_tokens", "/responses/input_tokens", None),
    ("POST", "/v1/moderations", "moderations", "/moderations", None),
    ("POST", "/v1/embeddings", "embeddings", "/embeddings", None),
    ("GET", "/v1/responses/resp_aB-9", "responses.get", "/responses/resp_aB-9", "resp_aB-9"),
    ("GET", "/v1/responses/resp_a?stream=true&include[]=x", "responses.get",
     "/responses/resp_a?stream=true&include[]=x", "resp_a"),
    ("DELETE", "/v1/responses/resp_a", "responses.delete", "/responses/resp_a", "resp_a"),
    ("POST", "/v1/responses/resp_a/cancel", "responses.cancel", "/responses/resp_a/cancel", "resp_a"),
    ("GET", "/v1/responses/resp_a/input_items", "responses.input_items", "/responses/resp_a/input_items", "resp_a"),
    ("GET", "/v1/models", "models", "/models", None),
    ("GET", "/v1/models/gpt-5.1", "models.get", "/models/gpt-5.1", None),
    ("POST", "/v1/traces/ingest", "traces.ingest", "/traces/ingest", None),
    ("GET", "/v1/models/ft:gpt-4o:org::a1", "models.get", "/models/ft:gpt-4o:org::a1", None),
]  # fmt: skip
HOSTILE = [
    "//evil.example/v1/models", "http://169.254.169.254/latest", "https://evil.example/v1/models", "/v1//models",
    "//v1/models", "/v1/models/", "/v1/models/..", "/v1/models/.", "/v1/models/a..b", "/v1/../v1/models",
    "/v1/%2e%2e/admin", "/v1/models%2f..", "/v1/models/%2e%2e", "/v1/models/%252e%252e", "/v1\\models", "/v1/models\\x",
    "/v1/models/a/b", "/v1/models#x", "/v1/models?x=#", "/v1/models?x=\\", "/v1/models?a=b c", "/v1/models\r\nX: y",
    "/v1/models\n", "/v1/models?x=1\n", "/v1/models/é", "/V1/models", "/v1/MODELS", "/v1", "/v1/", "", "/", "*",
    "/v1/responses/resp_", "/v1/responses/conv_1", "/v1/responses/resp_a/", "/v1/responses/resp_a%2fcancel",
    "/v1/responses/resp_a/../../organization/costs", "/v1/responses/resp_" + "a" * 201, "/v1/models?" + "a" * 2001,
    "/v1/models;a", "/v1/models?<script>", "/v1/models\x00", "/v1/chat/completions/", "/v1/chat/completions%20",
]  # fmt: skip
UNSERVED = [
    "/v1/files", "/v1/files/file_1", "/v1/files/..%2f..%2forganization%2fcosts", "/v1/organization/costs",
    "/v1/batches",
    "/v1/realtime/client_secrets", "/v1/realtime/calls", "/v1/chatkit/sessions", "/v1/conversations", "/v1/images",
    "/v1/responses/input_tokens/x", "/v1/responses/compacted", "/v1/audio/speech", "/v1/evals",
    "/v1/vector_stores", "/v1/assistants", "/v1/threads", "/v1/fine_tuning/jobs", "/v1/chat/completions/chatcmpl_1",
    "/v1/realtime/translations/client_secrets", "/v1/agents", "/v1/videos", "/v1/containers",
]  # fmt: skip
METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "get", "post")


@pytest.mark.parametrize(("method", "raw_path", "name", "path", "object_id"), KNOWN)
def test_known(method: str, raw_path: str, name: str, path: str, object_id: str | None) -> None:
    route = match(method, raw_path)
    assert route is not None
    assert (route.endpoint.name, route.path, route.object_id) == (name, path, object_id)


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/v1/chat/completions", {"POST"}),
        ("/v1/responses", {"POST"}),
        ("/v1/embeddings", {"POST"}),
        ("/v1/completions", {"POST"}),
        ("/v1/moderations", {"POST"}),
        ("/v1/responses/compact", {"POST"}),
        ("/v1/responses/input_tokens", {"POST"}),
        ("/v1/responses/resp_a", {"GET", "DELETE"}),
        ("/v1/responses/resp_a/cancel", {"POST"}),
        ("/v1/responses/resp_a/input_items", {"GET"}),
        ("/v1/models", {"GET"}),
        ("/v1/models/gpt-5", {"GET"}),
        ("/v1/traces/ingest", {"POST"}),
    ],
)
def test_methods(path: str, served: set[str]) -> None:
    assert {method for method in METHODS if match(method, path) is not None} == served


def test_every_entry_is_known_here() -> None:
    assert {entry.name for entry in CATALOGUE} == {name for _, _, name, _, _ in KNOWN}


@pytest.mark.parametrize("raw_path", [*HOSTILE, *UNSERVED])
def test_everything_else_goes_nowhere(raw_path: str) -> None:
    assert [method for method in METHODS if match(method, raw_path) is not None] == []


@given(st.sampled_from(METHODS), st.text(max_size=30), st.booleans())
def test_what_goes_upstream_is_plain(method: str, tail: str, under_models: bool) -> None:
    route = match(method, ("/v1/models/" if under_models else "/v1/") + tail)
    if route is not None:
        path = route.path.partition("?")[0]
        assert path.isascii()
        assert path.isprintable()
        assert not any(bad in path for bad in ("..", "//", "%", "\\", " ", "#", "@"))
