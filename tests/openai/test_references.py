"""Hosted tools and other people's objects are refused wherever a body can name them, and nothing else is."""

import json
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from openai.types.responses import response_input_item_param

from gateway.kit.errors import ApiError
from gateway.openai.references import ITEMS_MAX, Item
from gateway.openai.request import References, read_counted, read_request

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


CONTENT: list[tuple[str, dict[str, Any], str]] = [
    ("chat", {"messages": [{"content": [{"type": "file", "file": {"file_id": "f"}}]}]},
     "messages[0].content[0].file.file_id"),
    ("chat", {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "messages[0].audio.id"),
    ("responses", {"input": [{"content": [{"type": "input_file", "file_id": "f"}]}]}, "input[0].content[0].file_id"),
    ("responses", {"instructions": [{"content": [{"file_id": "f"}]}]}, "instructions[0].content[0].file_id"),
    ("responses", {"input": [{"type": "shell_call", "environment": {"container_id": "cntr_1"}}]},
     "input[0].environment.container_id"),
    ("responses", {"input": [{"type": "shell_call", "environment": {"skills": [{"skill_id": "s"}]}}]},
     "input[0].environment.skills[0].skill_id"),
    ("responses", {"input": [{"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1"}]},
     "input[0].container_id"),
    ("responses", {"input": [{"type": "computer_call_output", "output": {"file_id": "f"}}]}, "input[0].output.file_id"),
    ("responses", {"input": [{"type": "message", "y": {"file_ids": ["f"]}}]}, "input[0].y.file_ids"),
    ("responses", {"input": [{"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}]},
     "input[0].approval_request_id"),
]  # fmt: skip


@pytest.mark.parametrize(("endpoint", "more", "param"), CONTENT)
@pytest.mark.parametrize("escaped", [False, True])
def test_objects_of_others(endpoint: str, more: dict[str, Any], param: str, escaped: bool) -> None:
    raw = raw_of(**more)
    if escaped:
        for name in (b"file_id", b"audio", b"container_id", b"skill_id", b"approval_request_id"):
            raw = raw.replace(b'"' + name, f'"\\u{name[0]:04x}'.encode() + name[1:])
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
        ("responses", {"input": [{"type": "message", "y": {"id": "nested"}}]}),
        ("responses", {"input": [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}]}),
        ("responses", {"input": [{"type": "reasoning", "summary": []}, {"type": "compaction_trigger", "id": "ct_1"}]}),
        (
            "responses",
            {"input": [{"type": "mcp_list_tools", "id": "m", "server_label": "s", "tools": [{"name": "n"}]}]},
        ),
        ("responses", {"input": [{"type": "tool_search_call", "arguments": {"file_id": "made up"}}]}),
        (
            "responses",
            {
                "input": [
                    {
                        "type": "shell_call",
                        "id": "sh_1",
                        "action": {},
                        "environment": {"type": "local", "skills": [{"name": "n", "description": "d", "path": "/p"}]},
                    }
                ]
            },
        ),
        ("responses", {"input": [{"type": "message", "role": "user", "content": "the type is item_reference"}]}),
        ("responses", {"input": "x", "background": False, "conversation": None, "multi_agent": None}),
        ("embeddings", {"input": ["file_id", '"id"']}),
    ],
)
def test_what_is_the_caller_s_own_passes(endpoint: str, more: dict[str, Any]) -> None:
    raw = raw_of(**more)
    asked = read_request(endpoint, raw)
    assert (asked.body, asked.refers) == (raw, References())


@pytest.mark.parametrize("endpoint", ["responses", "responses.compact"])
@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "msg_1"},
        {"id": "msg_1"},
        {"id": "msg_1", "type": None},
        {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"},
        {"id": "msg_1", "type": "message", "role": "assistant", "content": []},
        {"id": "msg_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]},
        {"id": "msg_1", "type": "reasoning", "summary": [], "encrypted_content": None},
        {"id": "msg_1", "type": "image_generation_call", "status": "completed"},
        {"id": "msg_1", "type": "image_generation_call", "result": None},
        {"id": "msg_1", "type": "compaction"},
        {"id": "msg_1", "type": "file_search_call", "queries": ["q"], "status": "completed"},
    ],
)
@pytest.mark.parametrize("escaped", [False, True])
def test_items_that_only_refer(endpoint: str, item: dict[str, Any], escaped: bool) -> None:
    raw = raw_of(input=[{"role": "user", "content": "x"}, item, item])
    if escaped:
        raw = raw.replace(b'"id"', b'"\\u0069d"').replace(b"item_ref", b"\\u0069tem_ref")
    asked = read_request(endpoint, raw)
    assert (asked.refers.item_ids, asked.body) == (("msg_1",), raw)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b'{"model":"m","input":[{"type":"item_reference","id":"a","id":"b"}]}', "duplicate_field"),
        (b'{"model":"m","input":[{"type":"reasoning","id":"a","encrypted_content":"x","encrypted_content":""}]}',
         "duplicate_field"),
        (b'{"model":"m","input":[{"type":"item_reference","id":5}]}', "invalid_type"),
        (raw_of(input=[{"id": f"msg_{number}"} for number in range(ITEMS_MAX + 1)]), "array_above_max_length"),
    ],
)  # fmt: skip
def test_references_that_cannot_be_checked(raw: bytes, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_request("responses", raw)
    assert (caught.value.status, caught.value.code) == (400, code)


def test_a_response_whose_cache_use_is_compared() -> None:
    raw = raw_of(input="x", prompt_cache_options={"mode": "explicit", "comparison_response_id": "resp_1"})
    asked = read_request("responses", raw)
    assert (asked.refers, asked.refers.read_too) == (References(compared_response_id="resp_1"), False)
    with pytest.raises(ApiError) as caught:
        read_request("responses", raw.replace(b'"mode"', b'"comparison_response_id": "resp_2", "mode"'))
    assert caught.value.code == "duplicate_field"


def test_voices_that_somebody_made() -> None:
    refused("chat", raw_of(messages=[], audio={"format": "wav", "voice": {"id": "voice_1"}}), "audio.voice")
    read_request("chat", raw_of(messages=[], audio={"format": "wav", "voice": "alloy"}))


def test_a_wide_body_is_walked_without_building_paths() -> None:
    items = [{"role": "user", "content": [{"type": "input_text", "text": "\u00e9"}]}] * 5000
    refused("responses", raw_of(input=[*items, {"file_id": "f"}]), "input[5000].file_id")


def test_items_of_a_type_that_nobody_has_looked_at() -> None:
    known = [
        {"role": "user", "content": "x"},
        {"type": None, "role": "user", "content": "x"},
        {"type": "message", "role": "assistant", "content": "x"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "configuration_update", "reasoning": {"effort": "low"}},
    ]
    for endpoint in ("responses", "responses.compact", "responses.input_tokens"):
        read = read_counted if endpoint == "responses.input_tokens" else read_request
        read(endpoint, raw_of(input=known))
        for item in ({"type": "program", "call_id": "c"}, {"type": "made_up", "made_up_ref": "x"}, {"type": 5}):
            with pytest.raises(ApiError) as caught:
                read(endpoint, raw_of(input=[*known, item]))
            assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "input[5].type")
        with pytest.raises(ApiError) as caught:
            read(endpoint, raw_of(input=["x"]))
        assert (caught.value.code, caught.value.param) == ("invalid_type", "input[0]")


def test_the_types_of_items_are_openai_s() -> None:
    """A new version of the SDK brings new types: each is looked at, and then listed or left out."""
    of_sdk = set()
    for one in get_args(response_input_item_param.ResponseInputItemParam):
        kind = get_type_hints(one).get("type")
        of_sdk |= {value for value in _literals(kind) if isinstance(value, str)}
    assert of_sdk - set(get_args(Item)) == {"program", "program_output"}
    assert set(get_args(Item)) <= of_sdk


def _literals(hint: Any) -> set[Any]:
    """Every value of the literals inside a type."""
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return set(inner)
    return {value for part in inner for value in _literals(part)}
