"""Every parameter that OpenAI's SDK knows: it passes untouched, or is refused for a reason that is written here.

A new version of the SDK that brings a parameter makes this fail: somebody must say which of the two it is.
"""

import json
from typing import Any, Final

import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.beta import response_create_params as beta_response_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import input_token_count_params, response_compact_params, response_create_params

from gateway.kit.errors import ApiError
from gateway.openai.families.catalogue import ENDPOINT_OF
from gateway.openai.request import read_counted, read_request

FUNCTION: Final = {"type": "function", "name": "f", "parameters": {"type": "object"}}
CACHE: Final[dict[str, Any]] = {
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
    "prompt_cache_retention": "24h",
}
SAMPLING: Final[dict[str, Any]] = {"temperature": 0.5, "top_p": 0.9, "top_logprobs": 2}
ABOUT: Final[dict[str, Any]] = {"metadata": {"a": "b"}, "safety_identifier": "s", "user": "u", "store": False}
MODERATION: Final = {"model": "omni-moderation-latest", "policy": {"input": {"mode": "score"}}}
RESPONSES: Final[dict[str, Any]] = {
    **CACHE,
    **SAMPLING,
    **ABOUT,
    "access_programs": {"cyber": "standard"},
    "background": False,
    "context_management": [{"type": "compaction", "compact_threshold": 200_000}],
    "image": {"context_compression": "auto"},
    "include": [
        "reasoning.encrypted_content",
        "message.output_text.logprobs",
        "message.input_image.image_url",
        "computer_call_output.output.image_url",
        "web_search_call.action.sources",
        "file_search_call.results",
        "code_interpreter_call.outputs",
    ],
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}],
    "instructions": "i",
    "max_output_tokens": 100,
    "max_tool_calls": 3,
    "model": "gpt-5",
    "moderation": MODERATION,
    "parallel_tool_calls": True,
    "previous_response_id": "resp_1",
    "reasoning": {"effort": "low", "summary": "auto", "mode": "pro", "context": "all_turns"},
    "service_tier": "priority",
    "stream_options": {"include_obfuscation": False},
    "text": {"format": {"type": "text"}, "verbosity": "low"},
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    "tools": [FUNCTION],
    "truncation": "auto",
}
PASSES: Final[dict[str, dict[str, Any]]] = {
    "responses": RESPONSES,
    "responses.compact": {
        name: RESPONSES[name]
        for name in (*CACHE, "image", "input", "instructions", "model", "previous_response_id", "service_tier")
    },
    "responses.input_tokens": {
        **{
            name: RESPONSES[name]
            for name in ("input", "instructions", "model", "parallel_tool_calls", "previous_response_id", "reasoning")
        },
        **{name: RESPONSES[name] for name in ("text", "tool_choice", "tools", "truncation")},
        "personality": "friendly",
    },
    "chat": {
        **CACHE,
        **SAMPLING,
        **ABOUT,
        "audio": {"voice": "alloy", "format": "wav"},
        "frequency_penalty": 0.1,
        "function_call": "auto",
        "functions": [{"name": "f"}],
        "logit_bias": {"50256": -100},
        "logprobs": True,
        "max_completion_tokens": 100,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "x"}],
        "modalities": ["text", "audio"],
        "model": "gpt-5",
        "moderation": MODERATION,
        "n": 2,
        "parallel_tool_calls": True,
        "prediction": {"type": "content", "content": "x"},
        "presence_penalty": 0.1,
        "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
        "seed": 7,
        "service_tier": "flex",
        "stop": ["x"],
        "stream_options": {"include_usage": True, "include_obfuscation": False},
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "c"}}],
        "verbosity": "low",
    },
    "completions": {
        "best_of": 2,
        "echo": True,
        "frequency_penalty": 0.1,
        "logit_bias": {"50256": -100},
        "logprobs": 2,
        "max_tokens": 100,
        "model": "gpt-3.5-turbo-instruct",
        "n": 1,
        "presence_penalty": 0.1,
        "prompt": "x",
        "seed": 7,
        "stop": "x",
        "stream_options": {"include_usage": True},
        "suffix": "y",
        "temperature": 0.5,
        "top_p": 0.9,
        "user": "u",
    },
    "embeddings": {"dimensions": 8, "encoding_format": "float", "input": "x", "model": "m", "user": "u"},
}
CONVERSATION: Final = ("conv_1", "a conversation is somebody's, and nobody keeps whose yet")
REFUSED: Final[dict[str, dict[str, tuple[Any, str]]]] = {
    "responses": {
        "background_options": ({"completion_window": "8h"}, "its answer is fetched later, and nobody does that yet"),
        "conversation": CONVERSATION,
        "multi_agent": ({"enabled": True}, "any number of agents: nothing bounds the cost"),
        "prompt": ({"id": "pmpt_1"}, "a stored prompt is somebody's, and names a model that the request does not show"),
    },
    "responses.compact": {},
    "responses.input_tokens": {"conversation": CONVERSATION},
    "chat": {"web_search_options": ({}, "hosted web search has a fee per call")},
    "completions": {},
    "embeddings": {},
}
OF_THE_SDK: Final[dict[str, set[str]]] = {
    # `betas` becomes the header `openai-beta`.
    "responses": {
        *response_create_params.ResponseCreateParamsBase.__annotations__,
        *beta_response_create_params.ResponseCreateParamsBase.__annotations__,
    }
    - {"betas"},
    "responses.compact": {*response_compact_params.ResponseCompactParams.__annotations__},
    "responses.input_tokens": {*input_token_count_params.InputTokenCountParams.__annotations__},
    "chat": {*chat_create_params.CompletionCreateParamsBase.__annotations__},
    "completions": {*completion_create_params.CompletionCreateParamsBase.__annotations__},
    "embeddings": {*embedding_create_params.EmbeddingCreateParams.__annotations__},
}


def read(endpoint: str, body: dict[str, Any]) -> bytes:
    """The body as it is forwarded."""
    raw = json.dumps(body).encode()
    if endpoint == "responses.input_tokens":
        read_counted(endpoint, raw)
        return raw
    return read_request(endpoint, raw).body


def test_every_endpoint_whose_body_is_read_is_here() -> None:
    is_read = {name for name, endpoint in ENDPOINT_OF.items() if endpoint.kind in ("metered", "counted")}
    assert is_read == OF_THE_SDK.keys() == PASSES.keys() == REFUSED.keys()


@pytest.mark.parametrize("endpoint", OF_THE_SDK)
def test_every_parameter_is_decided(endpoint: str) -> None:
    passes, refused = set(PASSES[endpoint]), set(REFUSED[endpoint])
    assert passes | refused == OF_THE_SDK[endpoint]
    assert passes & refused == set()
    assert json.loads(read(endpoint, PASSES[endpoint])) == PASSES[endpoint]  # all at once


@pytest.mark.parametrize(("endpoint", "name"), [(endpoint, name) for endpoint, some in PASSES.items() for name in some])
def test_it_passes_untouched(endpoint: str, name: str) -> None:
    body = {"model": "m", name: PASSES[endpoint][name]}
    assert json.loads(read(endpoint, body)) == body
    nothing = {"model": "m", name: None} if name != "model" else {"model": "m"}
    assert json.loads(read(endpoint, nothing)) == nothing


@pytest.mark.parametrize(
    ("endpoint", "name"), [(endpoint, name) for endpoint, some in REFUSED.items() for name in some] +
    [("responses", "background")],
)  # fmt: skip
def test_it_is_refused_by_name(endpoint: str, name: str) -> None:
    value = True if name == "background" else REFUSED[endpoint][name][0]
    with pytest.raises(ApiError) as caught:
        read(endpoint, {"model": "m", name: value})
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_parameter", name)


@pytest.mark.parametrize("kind", ["function", "custom", "apply_patch", "shell", "computer_use_preview", "mcp"])
def test_a_choice_of_tool_costs_nothing(kind: str) -> None:
    """It can only choose among the tools that the request brings, and those are judged."""
    body = {"model": "m", "input": "x", "tools": [FUNCTION], "tool_choice": {"type": kind}}
    assert json.loads(read("responses", body)) == body
