"""Tools that the client runs itself pass, because they cost tokens only; those that OpenAI runs are refused by name."""

import json
from typing import Any, Final

import pytest

from gateway.kit.errors import ApiError
from gateway.openai.request import read_request
from gateway.openai.tools import TOOL_DEPTH_MAX

FUNCTION: Final = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"type": {}}}}
LOCAL: Final = {"type": "local", "skills": [{"name": "n", "description": "d", "path": "/p"}]}
# Shapes of openai-python 3.54, types/responses/tool_param.py.
OF_CLIENT: Final[list[dict[str, Any]]] = [
    {"type": "apply_patch"},
    {"type": "local_shell"},
    {"type": "computer"},
    {"type": "computer_use_preview", "display_height": 768, "display_width": 1024, "environment": "linux"},
    {"type": "shell", "environment": {"type": "local"}},
    {"type": "shell", "environment": LOCAL},
    {"type": "tool_search", "execution": "client", "description": "d", "parameters": {"type": "object"}},
    {"type": "namespace", "name": "crm", "description": "d", "tools": [FUNCTION, {"type": "custom", "name": "c"}]},
    {"type": "namespace", "name": "crm", "description": "d", "tools": []},
]
HOSTED: Final[list[dict[str, Any]]] = [
    {"type": "web_search"},
    {"type": "web_search_preview"},
    {"type": "file_search", "vector_store_ids": ["vs_1"]},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "image_generation"},
    {"type": "mcp", "server_label": "s", "server_url": "https://example.com"},
    {"type": "programmatic_tool_calling"},
    {"type": "shell"},
    {"type": "shell", "environment": None},
    {"type": "shell", "environment": "local"},
    {"type": "shell", "environment": {"type": "container_auto"}},
    {"type": "shell", "environment": {"type": "container_reference", "container_id": "cntr_1"}},
    {"type": "shell", "environment": {"type": "local", "container_id": "cntr_1"}},
    {"type": "shell", "environment": {"type": "local", "skills": [{"type": "skill_reference", "skill_id": "s"}]}},
    {"type": "tool_search"},
    {"type": "tool_search", "execution": "server"},
    {"type": "Function"},
    {"type": None},
    {"type": 5},
    {},
]


def raw_of(**more: Any) -> bytes:
    return json.dumps({"model": "m", **more}).encode()


def refused(endpoint: str, raw: bytes, param: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_request(endpoint, raw)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_parameter", param)
    return caught.value


def in_namespace(tool: dict[str, Any], depth: int = 1) -> dict[str, Any]:
    for _ in range(depth):
        tool = {"type": "namespace", "name": "n", "description": "d", "tools": [FUNCTION, tool]}
    return tool


@pytest.mark.parametrize("tool", OF_CLIENT)
def test_tools_of_the_client_pass(tool: dict[str, Any]) -> None:
    for each in (tool, in_namespace(tool), in_namespace(tool, 3)):
        for raw in (
            raw_of(input="x", tools=[FUNCTION, each]),
            raw_of(input=[{"type": "additional_tools", "role": "developer", "tools": [each]}]),
            raw_of(input=[{"type": "tool_search_output", "call_id": "c", "execution": "client", "tools": [each]}]),
        ):
            assert read_request("responses", raw).body == raw


@pytest.mark.parametrize("tool", OF_CLIENT)
def test_chat_knows_functions_and_custom_tools_only(tool: dict[str, Any]) -> None:
    refused("chat", raw_of(messages=[], tools=[FUNCTION, tool]), "tools[1].type")
    read_request("chat", raw_of(messages=[], tools=[FUNCTION, {"type": "custom", "custom": {"name": "c"}}]))


@pytest.mark.parametrize("tool", HOSTED)
def test_hosted_tools_are_refused_by_name(tool: dict[str, Any]) -> None:
    for endpoint in ("responses", "responses.compact", "chat"):
        error = refused(endpoint, raw_of(tools=[FUNCTION, tool]), "tools[1].type")
        kind = tool.get("type")
        assert (kind if isinstance(kind, str) else "(none)") in error.message
        assert "Function and custom tools work." in error.message
    refused("responses", raw_of(tools=[in_namespace(tool)]), "tools[0].tools[1].type")
    refused("responses", raw_of(tools=[in_namespace(tool, 2)]), "tools[0].tools[1].tools[1].type")
    for kind in ("additional_tools", "tool_search_output", None):
        items = [{"role": "user", "content": "x"}, {"type": kind, "role": "developer", "tools": [in_namespace(tool)]}]
        refused("responses", raw_of(input=items), "input[1].tools[0].tools[1].type")


def test_a_refusal_says_how_a_tool_would_pass() -> None:
    error = refused("responses", raw_of(tools=[{"type": "shell"}]), "tools[0].type")
    assert "'environment': {'type': 'local'}" in error.message
    error = refused("responses", raw_of(tools=[{"type": "tool_search"}]), "tools[0].type")
    assert "'execution': 'client'" in error.message


def test_namespaces_are_nested_within_a_bound() -> None:
    raw = raw_of(tools=[in_namespace(FUNCTION, TOOL_DEPTH_MAX)])
    assert read_request("responses", raw).body == raw
    with pytest.raises(ApiError) as caught:
        read_request("responses", raw_of(tools=[in_namespace(FUNCTION, TOOL_DEPTH_MAX + 2)]))
    assert caught.value.code == "unsupported_parameter"
    with pytest.raises(ApiError) as caught:
        read_request(
            "responses",
            b'{"model":"m","tools":' + b'[{"type":"namespace","tools":' * 9000 + b"[]" + b"}]" * 9000 + b"}",
        )
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b'{"model":"m","tools":[{"typ\\u0065":"\\u006dcp"}]}', "unsupported_parameter"),
        (b'{"model":"m","tools":[{"type":"function","typ\\u0065":"mcp"}]}', "duplicate_field"),
        (b'{"model":"m","tools":[{"type":"shell","environment":{"type":"local","type":"container_auto"}}]}',
         "duplicate_field"),
        (b'{"model":"m","tools":[{"type":"namespace","tools":[],"tools":[{"type":"mcp"}]}]}', "duplicate_field"),
        (b'{"model":"m","tools":[{"type":"namespace","tools":[{"type":"function","type":"mcp"}]}]}', "duplicate_field"),
        (b'{"model":"m","tools":[{"type":"namespace","tools":{}}]}', "invalid_type"),
        (b'{"model":"m","tools":[{"type":"namespace"}]}', "invalid_type"),
        (b'{"model":"m","tools":[{"type":"namespace","tools":["mcp"]}]}', "unsupported_parameter"),
        (b'{"model":"m","tools":[{"type":["mcp"]}]}', "invalid_type"),
        (b'{"model":"m","tools":["mcp"]}', "invalid_type"),
        (b'{"model":"m","tools":{"type":"mcp"}}', "invalid_type"),
    ],
)  # fmt: skip
def test_tools_that_hide(raw: bytes, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_request("responses", raw)
    assert (caught.value.status, caught.value.code) == (400, code)
