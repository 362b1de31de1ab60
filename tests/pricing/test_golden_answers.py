"""Golden answers, printed as OpenAI prints them, and read by what reads the real ones: whole, in pieces, with junk.

They are written for these tests, in every form that recordings of 2023 to 2026 have: members in the order of meaning or
by name, over many lines or compact, with and without a last line's end, with few and many details of usage.
"""

import json
from typing import Any, Final, NamedTuple

import pytest

from pricing.book import Book
from pricing.readers.body import Said, read_body, read_scan
from pricing.readers.scan import Scan
from pricing.stream import Shape, StreamMeter
from tests.pricing.cases import GOLDEN, ask
from tests.pricing.streams import crlf, pieces, relay

FOLDER: Final = GOLDEN / "answers"
EMBED: Final = "text-embedding-3-small"


class Golden(NamedTuple):
    """What one answer says: (input, output, total) as its usage has them, None where it has no such count."""

    endpoint: str
    id: str | None
    model: str | None
    tier: str | None
    tokens: tuple[int, int | None, int]


WHOLE: Final = {
    "chat": Golden("chat", "chatcmpl-Gold0001", "gpt-4o-mini-2024-07-18", "default", (207, 43, 250)),
    "chat_by_name": Golden("chat", "chatcmpl-Gold0002", "gpt-4.1-2025-04-14", "default", (19, 2, 21)),
    "chat_old": Golden("chat", "chatcmpl-Gold0003", "gpt-4-0613", None, (31, 2, 33)),
    "chat_tools": Golden("chat", "chatcmpl-Gold0004", "gpt-5.4-2026-03-05", "priority", (4100, 61, 4161)),
    "chat_audio": Golden("chat", "chatcmpl-Gold0005", "gpt-4o-mini-audio-preview-2024-12-17", "default", (22, 18, 40)),
    "chat_cache_write": Golden("chat", "chatcmpl-Gold0006", "gpt-5.6-sol", "default", (2300, 9, 2309)),
    "completions": Golden("completions", "cmpl-Gold0001", "gpt-3.5-turbo-instruct:20230824-v2", None, (11, 8, 19)),
    "completions_empty": Golden(
        "completions", "cmpl-Gold0002", "gpt-3.5-turbo-instruct:20230824-v2", None, (11, None, 11)
    ),
    "completions_by_name": Golden("completions", "cmpl-Gold0003", "davinci:2023-07-21-v2", None, (49, 6, 55)),
    "embeddings_base64": Golden("embeddings", None, EMBED, None, (7, None, 7)),
    "embeddings_numbers": Golden("embeddings", None, "text-embedding-3-large", None, (12, None, 12)),
    "responses": Golden("responses", "resp_gold1", "gpt-5.4-nano-2026-03-17", "default", (26, 5, 31)),
    "responses_tools": Golden("responses", "resp_gold2", "gpt-5-2025-08-07", "priority", (900, 64, 964)),
    "responses_auto": Golden("responses", "resp_gold3", "computer-use-preview-2025-03-11", "auto", (517, 14, 531)),
    "responses_incomplete": Golden("responses", "resp_gold4", "gpt-5.6-sol", "flex", (3000, 16, 3016)),
    "responses_compact": Golden("responses.compact", "resp_gold5", None, None, (80, 40, 120)),
}
STREAMS: Final = {
    "responses_queued": Golden("responses", "resp_gold6", "gpt-5-mini-2025-08-07", "default", (14, 8, 22)),
    "chat_audio.usage": Golden("chat", "chatcmpl-Gold0007", "gpt-audio-1.5", "default", (18, 16, 34)),
    "completions.usage": Golden("completions", "cmpl-Gold0004", "babbage:2023-07-21-v2", None, (31, 2, 33)),
}
WITHHELD: Final = ("chat_audio", "completions")
"""Streams that are there as OpenAI sends them to a client that does not ask for usage, too."""
JUNK: Final = (b" \r\n\t\n", b"\x00", b"\xff\xfe", b'{"usage":{"prompt_tokens":999}}', b"}]", b'"model":"none"')


def body(name: str) -> bytes:
    return (FOLDER / f"{name}.json").read_bytes()


def stream(name: str) -> bytes:
    return (FOLDER / f"{name}.sse").read_bytes()


def shape(endpoint: str) -> Shape:
    return "responses" if endpoint.startswith("responses") else "chat"


def tokens_of(usage: bytes | None) -> tuple[Any, Any, Any]:
    assert usage is not None
    said = json.loads(usage)
    counts = (said.get("input_tokens", said.get("prompt_tokens")), said.get("output_tokens"))
    return counts[0], counts[1] or said.get("completion_tokens"), said["total_tokens"]


def check(said: Said, golden: Golden) -> None:
    assert (said.response_id, said.model, said.service_tier) == (golden.id, golden.model, golden.tier)
    assert tokens_of(said.usage) == golden.tokens


def check_none_is_wrong(said: Said, golden: Golden) -> None:
    """Right or silent, member by member."""
    assert said.response_id in (None, golden.id)
    assert said.model in (None, golden.model)
    assert said.service_tier in (None, golden.tier)
    assert said.usage is None or tokens_of(said.usage) == golden.tokens


def test_every_golden_answer_is_judged() -> None:
    expected = {f"{name}.json" for name in WHOLE} | {f"{name}.sse" for name in STREAMS}
    assert {file.name for file in FOLDER.iterdir()} == expected | {f"{name}.plain.sse" for name in WITHHELD}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer(name: str) -> None:
    golden, data = WHOLE[name], body(name)
    check(read_body(data), golden)
    for size in (1, 7, len(data)):  # as one that is larger than is kept passes by
        scan = Scan()
        for at in range(0, len(data), size):
            scan.feed(data[at : at + size])
        check(read_scan(scan), golden)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_up_to_each_of_its_bytes(name: str) -> None:
    golden, data = WHOLE[name], body(name)
    for end in range(len(data.rstrip())):
        assert read_body(data[:end]) == Said(unsure=True)
    check(read_body(data.rstrip()), golden)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("junk", JUNK)
def test_a_whole_answer_with_junk_after_it(name: str, junk: bytes) -> None:
    golden, data = WHOLE[name], body(name)
    said = read_body(data + junk)
    if junk.isspace():
        check(said, golden)
    else:
        check_none_is_wrong(said, golden)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_has_a_price(name: str, book: Book) -> None:
    golden, said = WHOLE[name], read_body(body(name))
    usage = json.loads(said.usage or b"null")
    priced = ask(book, said.model or "gpt-5", usage, endpoint=golden.endpoint, service_tier=said.service_tier)
    assert priced.evidence == "reported", priced.problems
    assert (priced.prompt_tokens, priced.completion_tokens or None, priced.total_tokens) == golden.tokens
    assert priced.cost_nano


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("ending", [bytes, crlf])
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
@pytest.mark.parametrize("junk", [b"", b'data: {"usage":{"prompt_tokens":999}}\n\n\x00\xff'])
def test_a_stream(name: str, ending: type[bytes], size: int, junk: bytes) -> None:
    golden, data = STREAMS[name], ending(stream(name))
    meter = StreamMeter(shape(golden.endpoint))
    before, after = relay(meter, pieces(data + junk, size))
    assert before + after == data + junk
    assert meter.terminal
    check(meter.said, golden)


@pytest.mark.parametrize("name", WITHHELD)
@pytest.mark.parametrize("ending", [bytes, crlf])
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_a_stream_whose_usage_nobody_asked_for(name: str, ending: type[bytes], size: int) -> None:
    golden = STREAMS[f"{name}.usage"]
    meter = StreamMeter("chat", withhold=True)
    before, after = relay(meter, pieces(ending(stream(f"{name}.usage")), size))
    assert before + after == ending(stream(f"{name}.plain"))
    check(meter.said, golden)


def test_deltas_are_counted_and_keep_alives_are_not() -> None:
    counts = {}
    for name, golden in STREAMS.items():
        meter = StreamMeter(shape(golden.endpoint))
        relay(meter, [stream(name)])
        counts[name] = meter.deltas
    assert counts["responses_queued"] == 2
    assert counts["completions.usage"] == 2
