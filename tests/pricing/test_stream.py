"""The stream meter: every byte passes once, the end waits for SETTLE, and nothing inside a string fools it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing import stream as stream_module
from pricing.stream import StreamMeter
from tests.pricing.streams import CHAT, CHAT_FILES, RESPONSES_FILES, crlf, meter_for, pieces, relay, stream

ALL = (*CHAT_FILES, *RESPONSES_FILES)
USAGE = (
    b'{"prompt_tokens":21,"completion_tokens":9,"total_tokens":30,"prompt_tokens_details":{"cached_tokens":0,'
    b'"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
    b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
)
RESPONSES_USAGE = (
    b'{"input_tokens":36,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},'
    b'"output_tokens":87,"output_tokens_details":{"reasoning_tokens":64},"total_tokens":123}'
)
ENDS = {"responses": b'event: response.completed\ndata: {"type":"response.completed"', "chat": b"data: [DONE]\n\n"}
JUNK = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":999}}\n\n\x00\xff'


def end_of(name: str, data: bytes) -> int:
    """Where the terminal event of a golden stream begins, found without the code under test."""
    if name == "chat_error.sse":
        return len(data)
    if name.startswith("chat"):
        return data.rindex(b"data: [DONE]")
    if name == "responses_error_then_failed.sse":
        return data.index(b"event: error")
    return data.rindex(b"event: ")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("ending", [bytes, crlf])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1_000_000])
def test_every_byte_passes_once_and_the_end_is_held(name: str, ending: type[bytes], size: int) -> None:
    data = ending(stream(name))
    meter = meter_for(name)
    before, after = relay(meter, pieces(data, size))
    assert before + after == data
    assert len(before) == end_of(name, data)
    assert meter.terminal is (name != "chat_error.sse")
    assert meter.failed is ("error" in name or "failed" in name)
    assert meter.release() == b""


@pytest.mark.parametrize("name", ["chat.usage.sse", "chat_tricky.usage.sse", "responses.sse", "responses_failed.sse"])
@pytest.mark.parametrize("withhold", [False, True])
def test_every_split_in_two_says_the_same(name: str, withhold: bool) -> None:
    data = stream(name)
    whole = meter_for(name, withhold=withhold)
    expected = relay(whole, [data])
    for at in range(1, len(data)):
        meter = meter_for(name, withhold=withhold)
        assert relay(meter, [data[:at], data[at:]]) == expected, at
        assert meter.said == whole.said
        assert meter.terminal


@pytest.mark.parametrize("name", CHAT)
@pytest.mark.parametrize("ending", [bytes, crlf])
@pytest.mark.parametrize("size", [1, 5, 1_000_000])
def test_withheld_usage_leaves_what_openai_sends_without_it(name: str, ending: type[bytes], size: int) -> None:
    meter = StreamMeter("chat", withhold=True)
    before, after = relay(meter, pieces(ending(stream(f"{name}.usage.sse")), size))
    assert before + after == ending(stream(f"{name}.plain.sse"))
    assert after == ending(ENDS["chat"])
    assert meter.said.usage == USAGE


def test_an_event_with_content_and_usage_keeps_its_content() -> None:
    meter = StreamMeter("chat", withhold=True)
    event = b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"x"}}],"usage": {"prompt_tokens":1},"b":2}\n\n'
    assert meter.feed(event) == b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"x"}}],"b":2}\n\n'
    assert meter.said.usage == b'{"prompt_tokens":1}'


@pytest.mark.parametrize("name", ALL)
def test_what_was_said(name: str) -> None:
    meter = meter_for(name)
    relay(meter, [stream(name)])
    chat = name.startswith("chat")
    assert meter.said.response_id == ("chatcmpl-C1x7fZq0Rt5yUo2wLk9" if chat else "resp_68f0c2a1b7")
    assert meter.said.model == "gpt-5-mini-2025-08-07"
    without = ".plain." in name or name in ("chat_error.sse", "responses_failed_unused.sse", "responses_error.sse")
    assert meter.said.usage == (None if without else USAGE if chat else RESPONSES_USAGE)
    assert meter.said.service_tier == ("auto" if without and not chat else "default")
    items = {"responses_tools.sse": ["fc_1"], "responses_failed_unused.sse": []}.get(name, ["msg_68f0c2"])
    assert meter.said.item_ids == ([] if chat else items)


def test_items_are_known_without_the_end_of_their_stream() -> None:
    whole = stream("responses.sse")
    meter = meter_for("responses.sse")
    for piece in pieces(whole[: whole.index(b"response.output_item.done")], 7):
        meter.feed(piece)
    assert (meter.terminal, meter.said.item_ids) == (False, ["msg_68f0c2"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("chat.usage.sse", "Hello there."),
        ("chat_n2.usage.sse", "OneTwo"),
        ("chat_tools.plain.sse", 'weather{"city":"Oslo","usage":null}'),
        ("chat_obfuscation.usage.sse", "Hi you"),
        ("chat_refusal.usage.sse", "I cannot help."),
        ("chat_error.sse", "Half"),
        ("responses.sse", "Hello there."),
        ("responses_tools.sse", '{"city":"Oslo"}'),
    ],
)
def test_visible_text(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kept_max in (1_000_000, 100):  # condensed at the end, and on the way
        monkeypatch.setattr(stream_module, "KEPT_BYTES_MAX", kept_max)
        meter = meter_for(name)
        relay(meter, pieces(stream(name), 50))
        assert meter.visible_text() == text


@pytest.mark.parametrize("name", ["chat.usage.sse", "chat.plain.sse", "responses.sse"])
@pytest.mark.parametrize("size", [1, 9, 1_000_000])
def test_junk_after_the_end_is_held_and_says_nothing(name: str, size: int) -> None:
    clean, meter = meter_for(name), meter_for(name)
    relay(clean, [stream(name)])
    before, after = relay(meter, pieces(stream(name) + JUNK, size))
    assert before + after == stream(name) + JUNK
    assert after.endswith(JUNK)
    assert meter.said == clean.said


@pytest.mark.parametrize("name", ["chat.usage.sse", "responses.sse"])
@pytest.mark.parametrize("withhold", [False, True])
def test_a_cut_stream_has_no_end(name: str, withhold: bool) -> None:
    data = stream(name)
    last = end_of(name, data)
    for at in range(0, last, 11):
        meter = meter_for(name, withhold=withhold)
        before, after = relay(meter, pieces(data[:at], 13))
        assert not meter.terminal
        assert after == b""
        assert before == data[:at] or withhold


def test_the_end_without_its_blank_line_is_an_end() -> None:
    for shape, data in (("chat.usage.sse", b"data: [DONE]"), ("responses.sse", b'data: {"type":"response.completed"}')):
        meter = meter_for(shape)
        assert relay(meter, [data]) == (b"", data)
        assert meter.terminal


def test_no_part_of_the_end_goes_before_release() -> None:
    meter = StreamMeter("chat")
    assert meter.feed(b"data: [DO") == b""
    assert meter.feed(b"NE]\n") == b""  # a client that reads lines would stop here
    assert meter.feed(b"\n") == b""
    assert meter.release() == ENDS["chat"]


@pytest.mark.parametrize(
    "text",
    [b"[DONE]", b"data: [DONE]", rb"\n\ndata: [DONE]\n\n", rb"\"usage\":{}", b"response.completed", b"\xe2\x80\xa8"],
)
@pytest.mark.parametrize("shape", ["chat", "responses"])
def test_text_is_never_an_end(text: bytes, shape: str) -> None:
    events = {
        "chat": b'data: {"id":"c","choices":[{"delta":{"content":"%b"}}],"usage":null}\n\n',
        "responses": b'data: {"type":"response.output_text.delta","delta":"%b"}\n\n',
    }
    meter = meter_for(shape)
    data = (events[shape] % text) * 2
    assert meter.feed(data) == data
    assert not meter.terminal
    assert meter.said.usage is None


@pytest.mark.parametrize("odd", [b'"id":5', b'"service_tier":[]', b'"model":{}', b'"model":"\xff"', b'"id":"\\ud800x"'])
def test_one_odd_field_does_not_hide_the_usage(odd: bytes) -> None:
    chat = StreamMeter("chat")
    relay(chat, [b'data: {%b,"choices":[],"usage":{"prompt_tokens":1}}\n\n' % odd, ENDS["chat"]])
    assert chat.said.usage == b'{"prompt_tokens":1}'
    responses = StreamMeter("responses")
    inner = b'{%b,"usage":{"input_tokens":1}}' % odd
    relay(responses, [b'data: {"type":"response.completed","response":%b}\n\n' % inner])
    assert responses.said.usage == b'{"input_tokens":1}'
    assert responses.terminal


@pytest.mark.parametrize("shape", ["chat", "responses"])
@pytest.mark.parametrize("withhold", [False, True])
def test_deep_nesting_passes(shape: str, withhold: bool) -> None:
    data = b'data: {"deep":' + b"[" * 100_000 + b"]" * 100_000 + b',"error":1}\n\n'
    assert StreamMeter("chat" if shape == "chat" else "responses", withhold=withhold).feed(data) == data


def test_a_huge_event_passes_whole() -> None:
    meter = StreamMeter("responses")
    event = b'data: {"type":"response.image","partial":"' + b"A" * 3_000_000 + b'"}\n\n'
    end = b'data: {"type":"response.completed","response":{"id":"r","usage":{"input_tokens":1}}}\n\n'
    assert relay(meter, pieces(event + end, 65536)) == (event, end)
    assert meter.said.usage == b'{"input_tokens":1}'


@pytest.mark.parametrize("withhold", [False, True])
def test_beyond_the_bound_everything_passes_unmetered(withhold: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "EVENT_BYTES_MAX", 1000)
    meter = StreamMeter("chat", withhold=withhold)
    data = b'data: {"x":"' + b"A" * 5000 + b'"}\n\n' + ENDS["chat"]
    assert relay(meter, pieces(data, 100)) == (data, b"")
    assert not meter.terminal


@given(st.binary(max_size=300), st.integers(1, 40), st.booleans(), st.sampled_from(["chat", "responses"]))
def test_any_bytes_pass_once(data: bytes, size: int, withhold: bool, shape: str) -> None:
    before, after = relay(meter_for(shape, withhold=withhold), pieces(data, size))
    assert before + after == data  # short of the word `usage`, which no random bytes spell


@given(st.lists(st.sampled_from([b"\n", b"\r", b"data: [DONE]", b"data: {}", b": x", b'"usage":null,']), max_size=25))
def test_any_line_ends_pass_once(parts: list[bytes]) -> None:
    data = b"".join(parts)
    for size in (1, 2, 1000):
        before, after = relay(StreamMeter("chat"), pieces(data, size))
        assert before + after == data
