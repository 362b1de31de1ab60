"""Hosted tools and other people's objects are refused wherever a body can name them, and nothing else is."""

import json
from typing import Any

import pytest

from gateway.core.errors import ApiError
from gateway.core.request import read_request

FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"file_id": {"type": "x"}}}}


def raw_of(**more: Any) -> bytes:
    return json.dumps({"model": "m", **more}).encode()


def refused(endpoint: str, raw: bytes, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_request(endpoint, raw)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_parameter", param)


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("background", True),
        ("conversation", "conv_1"),
        ("conversation", {"id": "conv_1"}),
        ("prompt", {"id": "pmpt_1"}),
        ("background_options", {"completion_window": "8h"}),
        ("multi_agent", {"enabled": True}),
    ],
)
def test_parameters_of_responses(param: str, value: Any) -> None:
    refused("responses", raw_of(input="x", **{param: value}), param)
    read_request("responses", raw_of(input="x", **{param: None}))


def test_escaped_names_of_parameters() -> None:
    refused("responses", b'{"model":"m","b\\u0061ckground":true}', "background")
    refused("responses", b'{"model":"m","\\u0070rompt":{"id":"p"}}', "prompt")


def test_search_on_chat() -> None:
    refused("chat", raw_of(messages=[], web_search_options={}), "web_search_options")


@pytest.mark.parametrize(
    "kind",
    [
        "web_search",
        "file_search",
        "code_interpreter",
        "mcp",
        "image_generation",
        "shell",
        "namespace",
        None,
        5,
        "Function",
    ],
)
@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_hosted_tools(endpoint: str, kind: Any) -> None:
    refused(endpoint, raw_of(tools=[FUNCTION, {"type": kind}]), "tools[1].type")
    refused(endpoint, raw_of(tools=[{}]), "tools[0].type")


def test_hosted_tools_in_escapes() -> None:
    refused("responses", b'{"model":"m","tools":[{"typ\\u0065":"\\u006dcp"}]}', "tools[0].type")


@pytest.mark.parametrize("kind", ["additional_tools", "tool_search_output", None])
def test_hosted_tools_that_an_item_brings(kind: str | None) -> None:
    item = {
        "type": kind,
        "role": "developer",
        "tools": [FUNCTION, {"type": "mcp", "server_url": "https://example.com"}],
    }
    refused("responses", raw_of(input=[{"role": "user", "content": "x"}, item]), "input[1].tools[1].type")
    read_request("responses", raw_of(input=[{**item, "tools": [FUNCTION]}]))


CONTENT: list[tuple[str, dict[str, Any], str]] = [
    ("chat", {"messages": [{"content": [{"type": "file", "file": {"file_id": "f"}}]}]},
     "messages[0].content[0].file.file_id"),
    ("chat", {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "messages[0].audio.id"),
    ("responses", {"input": [{"content": [{"type": "input_file", "file_id": "f"}]}]}, "input[0].content[0].file_id"),
    ("responses", {"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ("responses", {"input": [{"id": "msg_1"}]}, "input[0]"),
    ("responses", {"input": [{"id": "msg_1", "type": None}]}, "input[0]"),
    ("responses", {"instructions": [{"content": [{"file_id": "f"}]}]}, "instructions[0].content[0].file_id"),
]  # fmt: skip


@pytest.mark.parametrize(("endpoint", "more", "param"), CONTENT)
@pytest.mark.parametrize("escaped", [False, True])
def test_objects_of_others(endpoint: str, more: dict[str, Any], param: str, escaped: bool) -> None:
    raw = raw_of(**more)
    if escaped:
        for name in (b'"file_id"', b'"audio"', b'"id"', b"item_reference"):
            start = 0 if name[:1] == b"i" else 1
            letter = name[start : start + 1]
            raw = raw.replace(name, name[:start] + f"\\u{ord(letter):04x}".encode() + name[start + 1 :])
        assert json.loads(raw) == {"model": "m", **more}
    refused(endpoint, raw, param)


@pytest.mark.parametrize(
    ("endpoint", "more"),
    [
        (
            "chat",
            {"messages": [{"content": 'file_id "audio" {"id":1}'}], "audio": {"voice": "x"}, "modalities": ["audio"]},
        ),
        ("chat", {"messages": [{"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function"}]}]}),
        ("chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": "é"}], "file_id": None}]}),
        ("chat", {"messages": [], "tools": None, "functions": [{"name": "web_search"}]}),
        ("responses", {"input": "item_reference file_id", "tools": [FUNCTION, {"type": "custom", "name": "c"}]}),
        ("responses", {"input": [{"id": "msg_1", "role": "assistant", "content": "x"}]}),
        ("responses", {"input": [{"id": "fc_1", "type": "function_call", "call_id": "c", "arguments": '{"id":"x"}'}]}),
        ("responses", {"input": [{"type": "x", "y": {"id": "nested"}}]}),
        ("responses", {"input": [{"type": "message", "role": "user", "content": "the type is item_reference"}]}),
        ("responses", {"input": "x", "background": False, "conversation": None, "multi_agent": None}),
        ("embeddings", {"input": ["file_id", '"id"']}),
    ],
)
def test_what_is_the_caller_s_own_passes(endpoint: str, more: dict[str, Any]) -> None:
    raw = raw_of(**more)
    assert read_request(endpoint, raw).body == raw


def test_a_wide_body_is_walked_without_building_paths() -> None:
    items = [{"role": "user", "content": [{"type": "input_text", "text": "\u00e9"}]}] * 5000
    refused("responses", raw_of(input=[*items, {"id": "msg"}]), "input[5000]")
