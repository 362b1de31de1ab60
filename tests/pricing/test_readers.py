"""Readers of whole answers: the answer's own fields, never a nested one's, and never an exception."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.readers.body import ITEMS_MAX, Said, read_body, read_scan, read_status
from pricing.readers.scan import Scan

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


def passed(data: bytes, size: int) -> Said:
    """What is found when `data` passes in pieces of `size`."""
    scan = Scan()
    for at in range(0, len(data), size):
        scan.feed(data[at : at + size])
    return read_scan(scan)


@pytest.mark.parametrize("body", [EMBEDDINGS, CHAT, RESPONSE])
@pytest.mark.parametrize("compact", [True, False])
def test_whole_and_as_it_passes(body: dict[str, Any], compact: bool) -> None:
    data = encoded(body, compact=compact)
    found = read_body(data)
    assert found.usage is not None
    assert json.loads(found.usage) == body["usage"]
    assert found == said(body, found.usage)
    for size in (len(data), 65_536, 4096, 1500):
        assert passed(data, size) == found


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


def test_what_passes_up_to_every_cut_is_right_or_silent() -> None:
    data = encoded({**EMBEDDINGS, "data": EMBEDDINGS["data"][:1]})
    for cut in range(len(data)):
        found = passed(data[:cut], 4096)
        assert found.unsure
        assert found.usage in (None, encoded(USAGE))
        assert found.model in (None, "text-embedding-3-small")
        assert found.response_id is None


def test_a_tier_before_many_tools_is_found() -> None:
    """As recorded answers are ordered: 90 KB of tools, and more, stand between the tier and the usage."""
    tool = {"type": "function", "name": "f", "description": "x" * 900, "parameters": {"service_tier": "default"}}
    for tier in ("priority", "flex", "auto"):
        body = {**RESPONSE, "service_tier": tier, "tools": [tool] * 200}
        found = passed(encoded({**body, "usage": RESPONSE["usage"]}, compact=False), 65_536)
        assert (found.service_tier, found.response_id, found.unsure) == (tier, "resp_1", False)
        assert found.usage is not None


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
    assert read_body(junk) == Said(unsure=True)
    assert read_status(junk) is None


def test_status() -> None:
    assert read_status(encoded(RESPONSE)) == "completed"
    assert read_status(b'{"status":1}') is None


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_are_read_without_an_exception(data: bytes, size: int) -> None:
    assert isinstance(read_body(data), Said)
    assert isinstance(passed(data, size), Said)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["usage", "id", '"usage":{}']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["usage", "id", "a", "\\"]), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), _json, max_size=4), _json, st.booleans())
def test_a_passing_body_never_gives_a_nested_field(body: dict[str, Any], last: Any, compact: bool) -> None:
    whole = {"id": "top", **{k: v for k, v in body.items() if k not in ("id", "usage")}, "usage": {"n": 1}, "z": last}
    data = encoded(whole, compact=compact)
    found = passed(data, 3)
    assert found.response_id == "top"
    assert found.usage is not None
    assert json.loads(found.usage) == {"n": 1}


def test_a_tier_in_an_unknown_form_is_unknown() -> None:
    for tier, unsure in (('"flex"', False), ("null", False), ('{"a":1}', True), ("1", True), ('"\\ud800"', True)):
        assert read_body(f'{{"id":"a","service_tier":{tier}}}'.encode()).unsure is unsure
