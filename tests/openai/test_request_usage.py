"""Asking for the stream's usage, and what is counted of a request: no other byte changes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai.request import read_request
from tests.support.odd_json import json_values, written


def body(**fields_: Any) -> bytes:
    return json.dumps({"model": "gpt-5-mini", **fields_}, ensure_ascii=False).encode()


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
            st.dictionaries(st.text(max_size=4).map(lambda name: "x" + name), json_values, max_size=3),
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
        assert asked.media.parts == 4
        assert 100 < asked.text_bytes < 900
    responses = [
        {"role": "user", "content": [{"type": "input_image", "image_url": f"data:image/png;base64,{data}"}] * 3}
    ]
    asked = read_request("responses", body(input=responses))
    assert asked.media.parts == 3
    assert asked.text_bytes < 400


def test_text_in_a_picture_s_clothes_counts_as_text() -> None:
    hidden = "data:a;base64," + "many words " * 1000
    assert read_request("chat", body(messages=[{"role": "user", "content": hidden}])).text_bytes > 11_000
    tools = [{"type": "function", "function": {"name": "f", "data": "A" * 5000}}]
    assert read_request("chat", body(messages=[], tools=tools)).text_bytes > 5000


def test_only_a_media_part_where_one_may_stand_is_no_text() -> None:
    words = "A" * 5000
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    for hidden in (
        [picture, {"type": "text", "text": "x", "url": words}],
        [picture, {"type": "text", "text": "x", "image_url": {"url": words}}],
        [picture, {"type": "text", "text": "x", "input_audio": {"data": words}}],
        [picture, {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "data": words}}],
        [picture, {"held": {"type": "image_url", "image_url": {"url": words}}}],
    ):
        asked = read_request("chat", body(messages=[{"role": "user", "content": hidden}]))
        assert asked.text_bytes > 5000
    item = {"type": "function_call_output", "call_id": "c", "output": words, "image_url": words}
    assert read_request("responses", body(input=[item])).text_bytes > 10_000


def test_files_and_sounds_are_measured_and_links_counted() -> None:
    data, far = "A" * 3000, "https://example.com/a.pdf"
    held: dict[str, list[dict[str, object]]] = {
        "chat": [
            {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": data}},
            {"type": "image_url", "image_url": {"url": data}},
        ],
        "responses": [
            {"type": "input_file", "filename": "a.pdf", "file_data": data},
            {"type": "input_file", "file_url": far},
            {"type": "input_image", "image_url": data},
        ],
    }
    for endpoint, inline, links in (("chat", 6000, 0), ("responses", 3000, 1)):
        field = "messages" if endpoint == "chat" else "input"
        whole = body(**{field: [{"role": "user", "content": held[endpoint]}]})
        spelled = whole.replace(b'"image_url"', rb'"image\u005furl"').replace(b'"data"', rb'"d\u0061ta"')
        for raw in (whole, spelled):
            media = read_request(endpoint, raw).media
            assert (media.parts, media.inline, media.links) == (3, inline, links)
    output = [{"type": "function_call_output", "call_id": "c", "output": held["responses"]}]
    assert read_request("responses", body(input=output)).media.inline == 3000


def test_of_two_caps_the_larger_holds() -> None:
    asked = read_request("chat", body(messages=[], max_tokens=1, max_completion_tokens=9000))
    assert asked.output_cap == 9000


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
