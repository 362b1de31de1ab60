"""What is read of a request, what is refused, and that every other byte stays as the client sent it."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kit.errors import ApiError
from gateway.openai.json_fields import DuplicateField, fields
from gateway.openai.prompt_text import prompt_text
from gateway.openai.request import CAP_MAX, CHOICES_MAX, Request, read_request
from tests.support.odd_json import json_values, written

MESSAGES = [{"role": "user", "content": "Hello"}]
DEEP = "[" * 100_000 + "]" * 100_000


def body(**fields_: Any) -> bytes:
    return json.dumps({"model": "gpt-5-mini", **fields_}, ensure_ascii=False).encode()


def chat(**more: Any) -> Request:
    return read_request("chat", body(messages=MESSAGES, **more))


def refused(endpoint: str, raw: bytes | str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_request(endpoint, raw.encode() if isinstance(raw, str) else raw)
    assert caught.value.status == 400
    msgspec.json.decode(caught.value.body())
    return caught.value


def test_the_facts_of_a_chat_call() -> None:
    asked = chat(n=3, max_tokens=50, max_completion_tokens=40, service_tier="flex", temperature=0.1)
    assert asked.body == body(messages=MESSAGES, n=3, max_tokens=50, max_completion_tokens=40, service_tier="flex",
                              temperature=0.1)  # fmt: skip
    assert (asked.model, asked.stream, asked.withhold_usage) == ("gpt-5-mini", False, False)
    assert (asked.service_tier, asked.output_cap, asked.choices) == ("flex", 50, 3)
    assert (asked.refers.previous_response_id, asked.cache_ttl, asked.stored) == (None, None, False)


def test_the_facts_of_a_responses_call() -> None:
    asked = read_request("responses", body(input="Hi", max_output_tokens=9, previous_response_id="resp_1", stream=True))
    assert (asked.output_cap, asked.choices, asked.stream, asked.stored) == (9, 1, True, True)
    assert asked.refers.previous_response_id == "resp_1"
    assert asked.body == body(input="Hi", max_output_tokens=9, previous_response_id="resp_1", stream=True)
    assert not read_request("responses", body(input="Hi", store=False)).stored
    assert read_request("responses", body(input="Hi", store=None)).stored


def test_embeddings_never_stream() -> None:
    asked = read_request("embeddings", body(input=[[1, 2], [3]], stream=True))
    assert (asked.stream, asked.output_cap, asked.text_bytes) == (False, None, len("[[1, 2], [3]]"))


@pytest.mark.parametrize(
    ("given_n", "choices"), [(1, 1), (0, 1), (-5, 1), (None, 1), (128, 128), (10**30, CHOICES_MAX)]
)
def test_choices(given_n: int | None, choices: int) -> None:
    assert chat(n=given_n).choices == choices


@pytest.mark.parametrize(
    ("cap", "read"), [(10**12, 10**12), (10**40, CAP_MAX), (0, 0), (-1, None), (None, None), (2**64, CAP_MAX)]
)
def test_caps(cap: int | None, read: int | None) -> None:
    assert chat(max_tokens=cap).output_cap == read
    assert read_request("responses", body(input="x", max_output_tokens=cap)).output_cap == read


# Bytes that are no request.


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"  ", b"null", b"[]", b'"x"', b"1", b"{", b"}", b'{"model":"m"', b'{"model":"m"}x', b'{"model":"m",}',
        b"\xef\xbb\xbf" + b'{"model":"m"}', b'{"model":"m","temperature":NaN}', b'{"model":"m","x":Infinity}',
        b'{"model":"m","x":-}', b"model=m", b"\x00", '{"model":"m"}'.encode("utf-16"), b"{'model':'m'}",
        b'{"model":"m","messages":"\\ud800"}', f'{{"model":"m","messages":{DEEP}}}'.encode(),
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("endpoint", ["chat", "responses", "embeddings"])
def test_no_json_object(endpoint: str, raw: bytes) -> None:
    assert refused(endpoint, raw).code == "invalid_request_error"


@pytest.mark.parametrize("depth", range(100, 3000, 100))
@pytest.mark.parametrize("field", ["input", "tools", "x", "instructions"])
def test_any_depth_is_read_or_refused(field: str, depth: int) -> None:
    raw = f'{{"model":"m","{field}":{"[" * depth}{{"id":"\\u0061"}}{"]" * depth}}}'.encode()
    with contextlib.suppress(ApiError):
        assert prompt_text(read_request("responses", raw).body)


def test_numbers_nobody_reads_pass() -> None:
    raw = b'{"model":"m","messages":[],"temperature":1e999,"seed":123456789012345678901234567890,"x":1e308}'
    assert read_request("chat", raw).body == raw


def test_bad_utf8_is_refused_where_it_is_read_and_passes_elsewhere() -> None:
    assert refused("chat", b'{"model":"\xff"}').param == "model"
    assert refused("responses", b'{"model":"m","input":[{"type":"x","id":"\xff"}]}').code == "invalid_request_error"
    raw = b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}'
    assert read_request("chat", raw).body == raw
    assert prompt_text(raw) == (raw.decode("utf-8", "replace"), 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 5), ("model", ["m"]), ("stream", "true"), ("stream", 1), ("n", "2"), ("n", 1.5), ("n", True),
        ("max_tokens", "9"), ("max_completion_tokens", {}), ("service_tier", 1), ("tools", {}), ("tools", "x"),
        ("model", "m" * 257), ("service_tier", "t" * 300), ("model", ""), ("model", None),
    ],
)  # fmt: skip
def test_wrong_types_name_the_field(field: str, value: Any) -> None:
    error = refused("chat", json.dumps({"model": "m", "messages": [], field: value}))
    assert error.param == field
    assert field in error.message


@pytest.mark.parametrize("field", ["max_output_tokens", "previous_response_id", "store", "background"])
def test_wrong_types_of_responses_name_the_field(field: str) -> None:
    assert refused("responses", body(input="x", **{field: [1]})).param == field


@pytest.mark.parametrize("options", [5, "x", [], True])
def test_wrong_stream_options(options: Any) -> None:
    assert refused("chat", body(messages=[], stream=True, stream_options=options)).param == "stream_options"


@pytest.mark.parametrize("value", [1, 0, "true", [], {}])
def test_wrong_include_usage(value: Any) -> None:
    error = refused("chat", body(messages=[], stream=True, stream_options={"include_usage": value}))
    assert error.param == "stream_options.include_usage"


# A repeat of a field.


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ('{"model":"a","model":"b"}', "model"),
        ('{"model":"a","model":"a"}', "model"),
        ('{"model":"a","mod\\u0065l":"b"}', "model"),
        ('{"\\u006dodel":"b","model":"a"}', "model"),
        ('{"model":"a","n":12,"n":1}', "n"),
        ('{"model":"a","n":1,"n":12}', "n"),
        ('{"model":"a","n":12,"x":1,"n":1}', "n"),
        ('{"model":"a","x":1,"n":12 , "n" : 1}', "n"),
        ('{"model":"a","max_tokens":100,"y":"\\\\","max_tokens":1}', "max_tokens"),
        ('{"model":"a","stream":false,"stream":true}', "stream"),
        ('{"model":"a","":1,"":2}', ""),
        ('{"model":"a","stream":true,"stream_options":{"include_usage":true,"include_usage":false}}',
         "stream_options.include_usage"),
        ('{"model":"a","stream":true,"stream_options":{"include_usage":true,"include_us\\u0061ge":true}}',
         "stream_options.include_usage"),
        ('{"model":"a","tools":[{"type":"web_search","type":"function"}]}', "tools[0].type"),
        ('{"model":"a","messages":[{"role":"user","content":[{"file_id":"a","file_id":null}]}]}', "file_id"),
    ],
)  # fmt: skip
def test_a_repeat_is_refused(raw: str, name: str) -> None:
    error = refused("chat", raw)
    assert (error.code, error.param) == ("duplicate_field", name)


_members = st.lists(st.tuples(st.text(max_size=3), json_values), max_size=6)


@given(written(_members))
def test_fields_finds_every_member_or_the_repeat(text: str) -> None:
    raw = text.encode()
    pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        with pytest.raises(DuplicateField) as caught:
            fields(raw)
        assert names.count(caught.value.args[0]) > 1
        return
    found = fields(raw)
    assert {name: json.loads(field.raw) for name, field in found.items()} == json.loads(text)
    assert all(raw[field.offset :].startswith(field.raw) for field in found.values())


@pytest.mark.parametrize("field", ["model", "service_tier"])
def test_a_value_that_is_no_utf8_is_called_so(field: str) -> None:
    body = json.dumps({"model": "gpt-4o-mini", "messages": [], field: "MARK"}).encode().replace(b"MARK", b"x\xff")
    with pytest.raises(ApiError, match=f"Invalid '{field}': it is not UTF-8."):
        read_request("chat", body)


def test_what_is_unsupported_reads_as_a_sentence() -> None:
    body = json.dumps({"model": "gpt-4o-mini", "messages": [], "web_search_options": {}}).encode()
    with pytest.raises(ApiError) as refused:
        read_request("chat", body)
    assert refused.value.message == (
        "This gateway does not support hosted web search yet: it could not check the cost, or whose data the call uses."
    )
