"""Readers of whole answers: the answer's own fields, never a nested one's, and never an exception."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.readers.body import ITEMS_MAX, TAIL_BYTES, Said, read_body, read_ends, read_status

USAGE: dict[str, Any] = {"prompt_tokens": 8, "total_tokens": 8}
EMBEDDINGS: dict[str, Any] = {
    "object": "list",
    "data": [{"object": "embedding", "index": i, "embedding": [0.0123456789, -0.5, 1e-9] * 512} for i in range(200)],
    "model": "text-embedding-3-small",
    "usage": USAGE,
}
NESTED = {"id": "call_1", "model": "gpt-image", "service_tier": "flex", "usage": {"input_tokens": 999}}
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-5-mini",
    "choices": [{"message": {"content": 'x"usage":{}\\"id\\":' * 9000, "tool_calls": [NESTED] * 200}}],
    "usage": USAGE,
    "service_tier": "priority",
    "metadata": {"usage": "nothing", "model": "none"},
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "gpt-5",
    "output": [{"id": "msg_1", "type": "message", "content": [{"text": "é\u2028" * 90_000}]}, NESTED],
    "service_tier": "default",
    "tools": [{"type": "function", "parameters": {"usage": {"type": "object"}, "model": "x"}}],
    "usage": {"input_tokens": 1, "output_tokens": 2},
    "user": None,
    "metadata": {},
}


def encoded(body: object, *, compact: bool = True) -> bytes:
    return json.dumps(body, separators=(",", ":") if compact else None, indent=None if compact else 1).encode()


def said(body: dict[str, Any], usage: bytes) -> Said:
    items = [item["id"] for item in body.get("output", [])]
    return Said(body.get("id"), body["model"], body.get("service_tier"), usage, items)


@pytest.mark.parametrize("body", [EMBEDDINGS, CHAT, RESPONSE])
@pytest.mark.parametrize("compact", [True, False])
def test_whole_and_by_its_ends(body: dict[str, Any], compact: bool) -> None:
    data = encoded(body, compact=compact)
    found = read_body(data)
    assert found.usage is not None
    assert json.loads(found.usage) == body["usage"]
    assert found == said(body, found.usage)
    found.item_ids = []  # the ends of this answer do not hold the whole of its output
    for cut in (TAIL_BYTES, 4096, 1500):
        assert read_ends(data[:cut], data[-cut:]) == found


def test_items_are_the_answers_own() -> None:
    made_up = {"id": "msg_of_another", "output": [{"id": "msg_of_another"}], "item": {"id": "msg_of_another"}}
    body = {
        "id": "resp_1",
        "output": [
            {"id": "rs_1", "type": "reasoning", "summary": [made_up]},
            {"id": "fc_1", "arguments": json.dumps(made_up), "x": made_up},
            {"id": "rs_1"},
        ],
        "tools": [{"parameters": {"default": made_up}}],
        "metadata": made_up,
    }
    assert read_body(encoded(body)).item_ids == ["rs_1", "fc_1"]
    # Half a surrogate pair, which msgspec refuses, and items of shapes that nobody expects.
    assert read_body(encoded({"output": [{"id": "msg_1", "content": "\ud800"}]})).item_ids == ["msg_1"]
    odd: list[Any] = [{"id": 5}, 7, None, {"id": None}, {"id": "a b"}, {"id": "x" * 257}, {"id": ""}, {"id": "msg_2"}]
    assert read_body(encoded({"output": odd})).item_ids == ["msg_2"]
    for none in ({}, "x", None, [], [[{"id": "msg_1"}]], {"id": "msg_1"}):
        assert read_body(encoded({"output": none})).item_ids == []


def test_items_of_an_answer_are_kept_up_to_a_bound() -> None:
    many = [{"id": f"fc_{number}"} for number in range(ITEMS_MAX + 7)]
    assert read_body(encoded({"output": many})).item_ids == [item["id"] for item in many[:ITEMS_MAX]]


def test_ends_at_every_cut_are_right_or_silent() -> None:
    data = encoded({**EMBEDDINGS, "data": EMBEDDINGS["data"][:1]})
    for cut in range(1, 400):
        found = read_ends(data[:cut], data[-cut:])
        assert found.usage in (None, encoded(USAGE))
        assert found.model in (None, "text-embedding-3-small")
        assert found.response_id is None
        assert (found.usage is not None) == (cut > len(encoded(USAGE)) + len('"usage":'))


def test_a_cut_answer_has_said_nothing_about_its_usage() -> None:
    data = encoded(CHAT)
    cut = data[: data.rindex(b'"usage":{"prompt_tokens"') + 20]
    assert read_ends(cut[:TAIL_BYTES], cut[-TAIL_BYTES:]).usage is None


def test_many_nested_usages_at_the_end_cost_little() -> None:
    nested = b'{"usage":' * 6000
    data = b'{"id":"a","usage":{"x":1},"z":' + nested + b"1" + b"}" * 6000 + b"}"
    assert read_ends(data[:TAIL_BYTES], data[-TAIL_BYTES:]).response_id == "a"
    quotes = b'{"id":"a","text":"' + b'\\"' * 40_000
    assert read_ends(quotes[:TAIL_BYTES], quotes[-TAIL_BYTES:]).response_id == "a"


@pytest.mark.parametrize(
    "odd",
    ['"id":7', '"id":"\\ud800"', '"model":null', '"service_tier":{"a":1}', '"deep":' + "[" * 50_000 + "]" * 50_000],
)
def test_one_odd_field_does_not_hide_the_usage(odd: str) -> None:
    assert read_body(f'{{{odd},"usage":{{"prompt_tokens":1}}}}'.encode()).usage == b'{"prompt_tokens":1}'


@pytest.mark.parametrize("usage", ["null", "[]", '"x"', "5", "true"])
def test_usage_that_is_no_object_is_none(usage: str) -> None:
    assert read_body(f'{{"id":"a","usage":{usage}}}'.encode()) == Said("a")


@pytest.mark.parametrize(
    "junk", [b"", b"null", b"[]", b"{", b"<html>", b"\xff\xfe", b'{"usage":{"a":1}', b"[" * 99_999]
)
def test_junk_has_said_nothing(junk: bytes) -> None:
    assert read_body(junk) == Said()
    assert read_status(junk) is None


def test_status() -> None:
    assert read_status(encoded(RESPONSE)) == "completed"
    assert read_status(b'{"status":1}') is None


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_are_read_without_an_exception(head: bytes, tail: bytes) -> None:
    assert isinstance(read_body(head), Said)
    assert isinstance(read_ends(head, tail), Said)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["usage", "id", '"usage":{}']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["usage", "id", "a", "\\"]), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), _json, max_size=4), _json, st.booleans())
def test_the_ends_never_take_a_nested_field(body: dict[str, Any], last: Any, compact: bool) -> None:
    whole = {"id": "top", **{k: v for k, v in body.items() if k not in ("id", "usage")}, "usage": {"n": 1}, "z": last}
    data = encoded(whole, compact=compact)
    found = read_ends(data, data)
    assert found.response_id == "top"
    assert found.usage is not None
    assert json.loads(found.usage) == {"n": 1}
