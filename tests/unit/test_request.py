"""What is read of a request, what is refused, and that every other byte stays as the client sent it."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ApiError
from gateway.core.json_fields import DuplicateField, fields
from gateway.core.prompt_text import prompt_text
from gateway.core.request import CAP_MAX, CHOICES_MAX, Request, read_request

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
    assert (asked.service_tier, asked.output_cap, asked.choices) == ("flex", 40, 3)
    assert (asked.previous_response_id, asked.cache_ttl, asked.stored) == (None, None, False)


def test_the_facts_of_a_responses_call() -> None:
    asked = read_request("responses", body(input="Hi", max_output_tokens=9, previous_response_id="resp_1", stream=True))
    assert (asked.output_cap, asked.choices, asked.stream, asked.stored) == (9, 1, True, True)
    assert asked.previous_response_id == "resp_1"
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
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
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


_space = st.text(" \t\r\n", max_size=2)
_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def written(draw: st.DrawFn, members: st.SearchStrategy[list[tuple[str, Any]]]) -> str:
    """An object of these members, written with odd whitespace and escapes."""
    parts = []
    for name, value in draw(members):
        key = json.dumps(name, ensure_ascii=draw(st.booleans()))
        parts.append(f"{draw(_space)}{key}{draw(_space)}:{draw(_space)}{json.dumps(value)}{draw(_space)}")
    return draw(_space) + "{" + ",".join(parts) + draw(_space) + "}" + draw(_space)


_members = st.lists(st.tuples(st.text(max_size=3), _value), max_size=6)


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


# The stream's usage is asked for, and no other byte changes.


def same(one: str, other: str) -> int:
    """How many characters both begin with."""
    return next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(other))


_options = st.none() | st.dictionaries(
    st.sampled_from(["include_usage", "include_obfuscation", "x"]), st.sampled_from([True, False, None]), max_size=3
)


@given(
    written(
        st.tuples(
            st.dictionaries(
                st.text(max_size=4).filter(lambda name: name not in ("model", "tools")), _value, max_size=3
            ),
            st.none() | _options.map(lambda options: {"stream_options": options}),
            st.permutations(["a", "b", "c"]),
        ).map(
            lambda drawn: [
                (name, value)
                for part in drawn[2]
                for name, value in {"a": drawn[0], "b": drawn[1] or {}, "c": {"model": "m", "stream": True}}[
                    part
                ].items()
            ]
        )
    )
)
def test_asking_for_usage_changes_nothing_else(text: str) -> None:
    original = json.loads(text)
    asked = read_request("chat", text.encode())
    options = original.get("stream_options") or {}
    expected = {**original, "stream_options": {**options, "include_usage": True}}
    assert json.loads(asked.body) == expected
    assert asked.withhold_usage is (options.get("include_usage") is not True)
    sent = asked.body.decode()
    if not asked.withhold_usage:
        assert sent == text
        return
    # One stretch was put in, or false or null replaced; before and behind it every byte is the client's.
    before = same(sent, text)
    behind = same(sent[before:][::-1], text[before:][::-1])
    assert before + behind >= len(text) - len("false")


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ("", '"stream_options":{"include_usage":true},'),
        ('"stream_options":null,', '"stream_options":{"include_usage":true},'),
        ('"stream_options": { } ,', '"stream_options": {"include_usage":true } ,'),
        ('"stream_options":{"x":1},', '"stream_options":{"include_usage":true,"x":1},'),
        ('"stream_options":{"include_usage" : false },', '"stream_options":{"include_usage" : true },'),
        ('"stream_options":{"include_usage":null,"x":1},', '"stream_options":{"include_usage":true,"x":1},'),
        (
            '"str\\u0065am_options":{"include_us\\u0061ge":false},',
            '"str\\u0065am_options":{"include_us\\u0061ge":true},',
        ),
    ],
)
def test_asking_for_usage_byte_for_byte(options: str, sent: str) -> None:
    rest = '"model":"m", "stream" :true,"messages":[{"content":"\\u00e9 \\/ é"}]  } '
    asked = read_request("chat", ("{" + options + rest).encode())
    assert asked.body.decode() == "{" + sent + rest
    assert asked.withhold_usage


def test_usage_that_was_asked_for_is_not_withheld() -> None:
    raw = body(messages=[], stream=True, stream_options={"include_usage": True})
    asked = read_request("chat", raw)
    assert (asked.body, asked.withhold_usage) == (raw, False)
    quiet = body(messages=[], stream=False, stream_options={"include_usage": False})
    assert read_request("chat", quiet).body == quiet


# Sizes.


def test_text_and_media_are_counted_apart() -> None:
    data = "A" * 1000
    parts = [
        {"type": "text", "text": "x" * 100},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{data}"}},
    ]
    whole = body(messages=[{"role": "user", "content": parts}])
    for raw in (whole, whole.replace(b"/", rb"\/")):
        asked = read_request("chat", raw)
        assert asked.media_parts == 4
        assert 100 < asked.text_bytes < 900
    responses = [
        {"role": "user", "content": [{"type": "input_image", "image_url": f"data:image/png;base64,{data}"}] * 3}
    ]
    asked = read_request("responses", body(input=responses))
    assert asked.media_parts == 3
    assert asked.text_bytes < 400


def test_text_in_a_picture_s_clothes_counts_as_text() -> None:
    hidden = "data:a;base64," + "many words " * 1000
    assert read_request("chat", body(messages=[{"role": "user", "content": hidden}])).text_bytes > 11_000
    tools = [{"type": "function", "function": {"name": "f", "data": "A" * 5000}}]
    assert read_request("chat", body(messages=[], tools=tools)).text_bytes > 5000


@pytest.mark.parametrize(
    ("ttl", "more"),
    [
        ("12h", {"prompt_cache_options": {"ttl": "12h"}}),
        ("12h", {"messages": [{"content": [{"text": "x", "prompt_cache_breakpoint": {"ttl": "12h"}}]}]}),
        (None, {"prompt_cache_options": {"ttl": "30m"}}),
        (None, {"prompt_cache_key": "k", "messages": [{"role": "user", "content": "12h"}]}),
        (None, {"prompt_cache_key": '"ttl":"12h"'}),
        (None, {}),
    ],
)
def test_cache_ttl(ttl: str | None, more: dict[str, Any]) -> None:
    assert read_request("chat", body(**more)).cache_ttl == ttl


def test_cache_ttl_written_in_escapes() -> None:
    raw = b'{"model":"m","prompt_cach\\u0065_options":{"\\u0074tl": "12\\u0068"}}'
    assert read_request("chat", raw).cache_ttl == "12h"
