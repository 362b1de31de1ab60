"""What a stream counts as output while it passes: deltas, and nothing else that an event may be.

The shapes are those of recorded streams: `keepalive` is a real event of responses, gpt-audio sends chunks without
`choices`, and comments may come at any time.
"""

import json

import pytest

from tests.pricing.streams import crlf, meter_for, pieces, relay, stream

COMMENTS = b": keep going\n\n" * 2000
KEEPALIVES = b'event: keepalive\ndata: {"type":"keepalive","sequence_number":3}\n\n' * 600
ITEM = b'event: response.output_item.added\ndata: {"type":"response.output_item.added","item":{"type":"message"}}\n\n'
RESPONSE_DELTA = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hi"}\n\n'


def chunk(delta: object) -> bytes:
    return (
        b"data: "
        + json.dumps({"id": "c", "choices": [{"index": 0, "delta": delta}]}, separators=(",", ":")).encode()
        + b"\n\n"
    )


ROLE = chunk({"role": "assistant", "content": "", "refusal": None})
HI = chunk({"content": "Hi"})
END = chunk({})
NO_CHOICES = b'data: {"id":"c","object":"chat.completion.chunk","usage":null,"obfuscation":"Kk27CsDA"}\n\n'
AUDIO = chunk({"audio": {"transcript": "Oh", "data": "AAAA"}})
LEGACY = b'data: {"id":"c","object":"text_completion","choices":[{"text":" Hi","index":0}]}\n\n'
LEGACY_END = b'data: {"id":"c","object":"text_completion","choices":[{"text":"","index":0,"finish_reason":"stop"}]}\n\n'
SPACED = b'data: {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n'
SPACED_ROLE = b'data: {"id": "c", "choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n'
QUOTED = chunk({"content": 'x"delta":{"content":"Hi"},"delta":"y'})
TOOL = chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"delta":{"a'}}]})


@pytest.mark.parametrize(
    ("shape", "data", "deltas"),
    [
        ("chat", HI + COMMENTS, 1),
        ("chat", ROLE + HI + HI + END + b"data: [DONE]\n\n", 2),
        ("chat", HI + NO_CHOICES + AUDIO, 2),
        ("chat", LEGACY + LEGACY + LEGACY_END, 2),
        ("chat", SPACED_ROLE + SPACED + COMMENTS, 1),
        ("chat", QUOTED + TOOL, 2),
        ("responses", RESPONSE_DELTA + KEEPALIVES, 1),
        ("responses", ITEM + RESPONSE_DELTA + RESPONSE_DELTA + COMMENTS, 2),
        ("responses", RESPONSE_DELTA.replace(b'":"', b'": "') + KEEPALIVES, 1),
        ("responses", RESPONSE_DELTA.replace(b"Hi", b""), 0),
        ("responses", RESPONSE_DELTA.replace(b"Hi", rb"\"delta\":\"x"), 1),
    ],
)
@pytest.mark.parametrize("size", [1, 60, 10_000_000])
@pytest.mark.parametrize("ending", [bytes, crlf])
def test_only_deltas_are_output(shape: str, data: bytes, deltas: int, size: int, ending: type[bytes]) -> None:
    meter = meter_for(shape)
    relay(meter, pieces(ending(data), size))
    assert meter.deltas == deltas


@pytest.mark.parametrize(
    ("name", "deltas"), [("chat.usage.sse", 3), ("chat_n2.usage.sse", 2), ("responses_tools.sse", 2)]
)
def test_of_whole_streams(name: str, deltas: int) -> None:
    meter = meter_for(name)
    relay(meter, [stream(name)])
    assert meter.deltas == deltas


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_what_the_standard_allows_and_openai_may_send_one_day(size: int) -> None:
    for name in ("chat.usage.sse", "responses.sse"):
        plain = meter_for(name)
        relay(plain, [stream(name)])
        for data in (
            b"\xef\xbb\xbf" + stream(name),
            stream(name).replace(b"data: ", b"data:"),
            stream(name).replace(b"data: {", b"data: {\ndata:"),
            stream(name).replace(b"data: ", b": x\nid: 7\nretry: 9\ndata: "),
        ):
            meter = meter_for(name)
            before, after = relay(meter, pieces(crlf(data), size))
            assert before + after == crlf(data)
            assert (meter.said, meter.terminal, meter.deltas) == (plain.said, True, plain.deltas)
