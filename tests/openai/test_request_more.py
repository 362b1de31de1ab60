"""What is read of the smaller endpoints' requests: legacy completions, compaction, token counts."""

import json
from typing import Any

import pytest

from gateway.kit.errors import ApiError
from gateway.openai.prompt_text import prompt_text
from gateway.openai.request import CHOICES_MAX, PROMPTS_MAX, References, read_counted, read_request


def body(**fields_: Any) -> bytes:
    return json.dumps({"model": "gpt-3.5-turbo-instruct", **fields_}).encode()


def test_a_completion_without_a_limit_writes_16_tokens_at_most() -> None:
    asked = read_request("completions", body(prompt="Once upon a time"))
    assert (asked.output_cap, asked.choices, asked.text_bytes) == (16, 1, len('"Once upon a time"'))
    assert read_request("completions", body(prompt="x", max_tokens=500)).output_cap == 500
    assert read_request("completions", body(prompt="x", max_tokens=0)).output_cap == 0


@pytest.mark.parametrize(
    ("fields_", "choices"),
    [
        ({"prompt": "x", "n": 2}, 2),
        ({"prompt": "x", "n": 2, "best_of": 5}, 5),
        ({"prompt": ["x", "y", "z"]}, 3),
        ({"prompt": ["x", "y"], "n": 2, "best_of": 4}, 8),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"prompt": []}, 1),
        ({"prompt": None}, 1),
        ({}, 1),
        ({"prompt": "x", "n": 10**9}, CHOICES_MAX),
        ({"prompt": ["x"] * 5000}, PROMPTS_MAX),
    ],
)
def test_answers_of_a_completion(fields_: dict[str, Any], choices: int) -> None:
    assert read_request("completions", body(**fields_)).choices == choices


@pytest.mark.parametrize(
    ("options", "sent", "withheld"),
    [
        (None, {"include_usage": True}, True),
        ({"include_usage": False}, {"include_usage": True}, True),
        ({"include_usage": True}, {"include_usage": True}, False),
    ],
)
def test_a_streamed_completion_is_asked_for_its_usage(
    options: dict[str, Any] | None, sent: dict[str, Any], withheld: bool
) -> None:
    given = {} if options is None else {"stream_options": options}
    asked = read_request("completions", body(prompt="x", stream=True, **given))
    assert (json.loads(asked.body)["stream_options"], asked.withhold_usage) == (sent, withheld)


def test_text_of_a_prompt() -> None:
    assert prompt_text(body(prompt=["one", "two"], suffix="end"))[0].split() == ["end", "two", "one"]
    assert prompt_text(body(prompt=[1, 2, 3])) == ("", 3)


def test_text_of_tools_that_the_client_runs() -> None:
    """Shapes of openai-python 3.54, `types/responses/response_input_item_param.py`."""
    function = {"type": "function", "name": "find", "description": "finds"}
    grammar = {"type": "custom", "name": "own", "format": {"type": "grammar", "syntax": "lark", "definition": "start"}}
    tools = [{"type": "namespace", "name": "crm", "description": "customers", "tools": [function, grammar]}]
    patch = {"type": "update_file", "path": "a.py", "diff": "+x"}
    shot = {"type": "computer_screenshot", "image_url": "data:image/png;base64,AAAA"}
    items = [
        {"type": "apply_patch_call", "id": "apc_1", "call_id": "call_1", "status": "completed", "operation": patch},
        {"type": "apply_patch_call_output", "call_id": "call_1", "status": "completed", "output": "patched"},
        {"type": "shell_call", "call_id": "call_2", "action": {"commands": ["ls"]}, "environment": {"type": "local"}},
        {"type": "shell_call_output", "call_id": "call_2", "output": [{"stdout": "out", "stderr": "err"}]},
        {"type": "local_shell_call", "id": "lsh_1", "call_id": "c", "action": {"type": "exec", "command": ["pwd"]}},
        {"type": "computer_call_output", "call_id": "call_3", "output": shot},
        {"type": "tool_search_call", "execution": "client", "arguments": {"goal": "rates"}},
    ]
    text, tokens = prompt_text(body(input=items, tools=tools, text={"format": {"type": "json_schema", "name": "s"}}))
    read = "find finds own lark start crm customers a.py +x patched ls out err pwd rates s"
    assert sorted(text.split()) == sorted(read.split())
    assert tokens == 0
    asked = read_request("responses", body(input=items, tools=tools))
    assert asked.media.parts == 1


def test_compaction_is_asked_as_a_response_and_never_streams() -> None:
    asked = read_request("responses.compact", body(input="Hi", previous_response_id="resp_1", stream=True))
    assert (asked.refers.previous_response_id, asked.stream, asked.stored, asked.output_cap) == (
        "resp_1",
        False,
        False,
        None,
    )
    assert asked.text_bytes == len('"Hi"')


@pytest.mark.parametrize("endpoint", ["responses.compact", "responses.input_tokens"])
@pytest.mark.parametrize(
    ("fields_", "param"),
    [
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
         "input[0].content[0].file_id"),
    ],
)  # fmt: skip
def test_what_may_be_somebody_elses_is_refused(endpoint: str, fields_: dict[str, Any], param: str) -> None:
    read: Any = read_counted if endpoint == "responses.input_tokens" else read_request
    with pytest.raises(ApiError) as caught:
        read(endpoint, body(**fields_))
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_parameter", param)


def test_a_count_names_the_response_it_goes_on_from() -> None:
    assert read_counted("responses.input_tokens", body(input="x", previous_response_id="resp_1")) == References(
        "resp_1"
    )
    named = body(input=[{"type": "item_reference", "id": "msg_1"}])
    assert read_counted("responses.input_tokens", named) == References(item_ids=("msg_1",))
    assert read_counted("responses.input_tokens", b'{"input": "x"}') == References()
    with pytest.raises(ApiError) as caught:
        read_counted("responses.input_tokens", b'{"previous_response_id":"a","previous_response_id":"b"}')
    assert caught.value.code == "duplicate_field"
