"""Nested counts become disjoint classes; whatever makes no sense is an error that names its fields."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.usage import TOKENS_MAX, TokenCounts, UsageError, decode, decompose, read_counts
from tests.pricing.cases import chat, golden, responses

NO_COUNTS = TokenCounts()
GOLDEN: dict[str, dict[str, int]] = {
    "chat": {"input": 1117, "output": 46},
    "chat_cached_reasoning": {"input": 2006 - 1920, "cached": 1920, "output": 300},
    "chat_cache_write": {"input": 5000 - 1024 - 2048, "cached": 1024, "write_30m": 2048, "output": 100},
    "chat_audio": {"input": 20, "audio_input": 95, "audio_output": 200, "output": 50},
    "chat_prediction": {"input": 60, "output": 90},
    "responses": {"input": 36, "output": 87},
    "responses_cache_split": {
        "input": 12000 - 4096 - 3072,
        "cached": 4096,
        "write_30m": 2048,
        "write_12h": 1024,
        "output": 800,
    },
    "empty_details": {"input": 10, "output": 5},
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bodies(name: str) -> None:
    found = decompose(golden(name))
    assert found.classes == GOLDEN[name]
    assert found.total_tokens == found.prompt_tokens + (found.completion_tokens or 0)


def test_embeddings_have_no_completion() -> None:
    found = decompose(golden("embeddings"), output="none")
    assert (found.classes, found.completion_tokens, found.total_tokens) == ({"input": 8}, None, 8)
    with pytest.raises(UsageError, match="completion_tokens is missing"):
        decompose(golden("embeddings"))


def test_an_empty_completion_may_leave_its_count_out() -> None:
    found = decompose({"prompt_tokens": 11, "total_tokens": 11}, output="in_total")
    assert (found.classes, found.completion_tokens, found.total_tokens) == ({"input": 11}, 0, 11)
    for usage in ({"prompt_tokens": 11}, {"prompt_tokens": 11, "total_tokens": 12}):
        with pytest.raises(UsageError, match=r"completion_tokens is missing"):
            decompose(usage, output="in_total")


def test_unsplit_cache_writes_go_to_the_ttl_that_was_asked_for() -> None:
    usage = golden("chat_cache_write")
    assert decompose(usage, cache_ttl="12h").classes["write_12h"] == 2048
    assert decompose(usage, cache_ttl="30m").classes["write_30m"] == 2048
    partly = responses(100, 1, cache_write_tokens=50, cache_write_tokens_details={"ttl_30m_tokens": 20})
    assert decompose(partly, cache_ttl="12h").classes == {"input": 50, "write_30m": 20, "write_12h": 30, "output": 1}


def test_a_ttl_split_without_its_total_counts() -> None:
    usage = responses(100, 1, cache_write_tokens_details={"ttl_12h_tokens": 30})
    assert decompose(usage).classes == {"input": 70, "write_12h": 30, "output": 1}


NONSENSE: list[tuple[dict[str, Any], str]] = [
    (chat(10, 5, cached_tokens=11), "cached_tokens .* prompt_tokens 10"),
    (chat(10, 5, cached_tokens=6, cache_write_tokens=5), "cache_write_tokens is 11, above prompt_tokens 10"),
    (chat(10, 5, audio_tokens=6, text_tokens=5), "text_tokens .* above prompt_tokens 10"),
    (chat(10, 5, audio_tokens=6, cached_tokens=5), "audio_tokens is 11, above prompt_tokens 10"),
    (chat(10, 5, cached_tokens=-1), "cached_tokens is -1"),
    (chat(-1, 5), "prompt_tokens is -1"),
    (chat(TOKENS_MAX + 1, 5), "prompt_tokens is"),
    ({"prompt_tokens": True, "completion_tokens": 1}, "prompt_tokens is True"),
    ({"prompt_tokens": 1.0, "completion_tokens": 1}, "prompt_tokens is 1.0"),
    ({"prompt_tokens": "1", "completion_tokens": 1}, "prompt_tokens is 1, not"),
    ({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 3}, "total_tokens is 3, .* is 2"),
    ({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 1}, "total_tokens is 1, .* is 2"),
    ({"completion_tokens": 1}, "prompt_tokens is missing"),
    ({"input_tokens": 1}, "output_tokens is missing"),
    ({"input_tokens": 1, "prompt_tokens": 1}, "both input_tokens and prompt_tokens"),
    ({**chat(1, 1), "prompt_tokens_details": [1]}, "prompt_tokens_details is not an object"),
    (
        {**chat(1, 9), "completion_tokens_details": {"reasoning_tokens": 10}},
        "reasoning_tokens is 10, above completion_tokens 9",
    ),
    ({**chat(1, 9), "completion_tokens_details": {"audio_tokens": 5, "text_tokens": 5}}, "text_tokens is 10, above"),
    (
        {**chat(1, 9), "completion_tokens_details": {"accepted_prediction_tokens": 5, "rejected_prediction_tokens": 5}},
        "rejected_prediction_tokens is 10, above",
    ),
    ({**chat(1, 1), "video_tokens": 3}, "video_tokens is not a known usage field"),
    ({**chat(1, 1), "tools": [{"calls": 0}, {"calls": 2}]}, r"tools\[1\].calls is not a known"),
    (chat(9, 1, video_tokens=3), "prompt_tokens_details.video_tokens is not a known"),
    ({**chat(1, 1), "price": 0.5}, "price is not a known"),
    (
        responses(9, 1, cache_write_tokens=3, cache_write_tokens_details={"ttl_30m_tokens": 2, "ttl_12h_tokens": 2}),
        "ttl_12h_tokens is 4, above cache_write_tokens 3",
    ),
    (responses(9, 1, cache_write_tokens_details={"ttl_7d_tokens": 2}), "ttl_7d_tokens is not a known"),
]


@pytest.mark.parametrize(("usage", "message"), NONSENSE)
def test_nonsense_is_named(usage: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decompose(usage)


def test_unknown_fields_that_say_nothing_are_ignored() -> None:
    usage = {**chat(3, 1), "note": "x", "flag": True, "none": None, "zero": 0, "deep": {"a": [0, None, {"b": ""}]}}
    assert decompose(usage).classes == {"input": 3, "output": 1}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"null", "missing"),
        (b"[]", "not an object"),
        (b"{", "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
    ],
)
def test_what_is_no_usage_block(raw: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decode(raw)


@pytest.mark.parametrize(
    "odd", [rb'"\ud800"', rb'"a\u0000"', b'"\xff"', b'"a\nb"', b"0e999999", rb'{"\udfff":[null,"\ud800x"]}']
)
def test_an_odd_text_beside_them_hides_no_count(odd: bytes) -> None:
    raw = b'{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4,"note":' + odd + b"}"
    assert decompose(decode(raw)).classes == {"input": 3, "output": 1}


@pytest.mark.parametrize("odd", [b"1e999999", b"9" * 400, rb'{"\ud800\u0000":5}'])
def test_an_odd_number_is_not_taken_for_nothing(odd: bytes) -> None:
    raw = b'{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4,"note":' + odd + b"}"
    with pytest.raises(UsageError, match="is not a known usage field") as refused:
        decompose(decode(raw))
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("raw", "counts"),
    [
        (b'{"prompt_tokens":8,"completion_tokens":5,"total_tokens":13}', (8, 5, 13)),
        (b'{"input_tokens":8,"output_tokens":5}', (8, 5, 13)),
        (b'{ "input_tokens" : 8, "output_tokens" : null, "total_tokens" : 8, "zz" : 5 }', (8, None, 8)),
        (b'{"prompt_tokens":8,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":-3}}', (8, 5, 13)),
        (b'{"prompt_tokens":0,"completion_tokens":%d}' % TOKENS_MAX, (0, TOKENS_MAX, TOKENS_MAX)),
        (b'{"prompt_tokens":0,"completion_tokens":%d}' % (TOKENS_MAX + 1), NO_COUNTS),
        (b'{"prompt_tokens":8,"completion_tokens":5,"total_tokens":14}', NO_COUNTS),
        (b'{"prompt_tokens":8,"completion_tokens":-5,"total_tokens":3}', NO_COUNTS),
        (b'{"prompt_tokens":8.0,"completion_tokens":5}', NO_COUNTS),
        (b'{"prompt_tokens":"8","completion_tokens":5}', NO_COUNTS),
        (b'{"prompt_tokens":true,"completion_tokens":5}', NO_COUNTS),
        (b'{"prompt_tokens":8,"input_tokens":8,"completion_tokens":5}', NO_COUNTS),
        (b'{"completion_tokens":5,"total_tokens":5}', NO_COUNTS),
        (b'{"prompt_tokens":8,"completion_tokens":5', NO_COUNTS),
        (b"[8]", NO_COUNTS),
        (b"null", NO_COUNTS),
        (b"", NO_COUNTS),
    ],
)
def test_counts_of_the_whole_call_are_read_when_they_are_sane(raw: bytes, counts: tuple[int | None, ...]) -> None:
    assert read_counts(raw) == counts


@given(st.binary(max_size=60))
def test_no_bytes_make_the_counts_raise(raw: bytes) -> None:
    assert read_counts(raw) == NO_COUNTS
    assert read_counts(b'{"prompt_tokens":3,"x":"' + raw) in (NO_COUNTS, (3, None, 3))


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.booleans())
def test_counts_are_those_of_a_priced_block(count_in: int, count_out: int, new: bool) -> None:
    block = responses(count_in, count_out) if new else chat(count_in, count_out)
    found = decompose(block)
    assert read_counts(json.dumps(block).encode()) == (found.prompt_tokens, found.completion_tokens, found.total_tokens)


@st.composite
def parts(draw: st.DrawFn) -> dict[str, int]:
    names = ("plain", "cached", "short", "long", "audio", "text_out", "audio_out")
    return {name: draw(st.integers(0, 10**6)) for name in names}


@given(parts())
def test_decompose_inverts_composition(part: dict[str, int]) -> None:
    whole_in = part["plain"] + part["cached"] + part["short"] + part["long"] + part["audio"]
    whole_out = part["text_out"] + part["audio_out"]
    usage = {
        "input_tokens": whole_in,
        "input_tokens_details": {
            "cached_tokens": part["cached"],
            "cache_write_tokens": part["short"] + part["long"],
            "cache_write_tokens_details": {"ttl_30m_tokens": part["short"], "ttl_12h_tokens": part["long"]},
            "audio_tokens": part["audio"],
        },
        "output_tokens": whole_out,
        "output_tokens_details": {"audio_tokens": part["audio_out"]},
        "total_tokens": whole_in + whole_out,
    }
    expected = {
        "input": part["plain"],
        "cached": part["cached"],
        "write_30m": part["short"],
        "write_12h": part["long"],
        "audio_input": part["audio"],
        "output": part["text_out"],
        "audio_output": part["audio_out"],
    }
    assert decompose(decode(json.dumps(usage).encode())).classes == {name: n for name, n in expected.items() if n}


COUNTS = st.one_of(st.none(), st.integers(-2, 50), st.floats(0, 3), st.booleans())
DETAILS = st.dictionaries(
    st.sampled_from(
        ["cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens", "text_tokens", "new_tokens"]
    ),
    COUNTS,
)


@given(
    st.dictionaries(
        st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "odd"]),
        COUNTS,
    ),
    DETAILS,
)
def test_any_block_is_either_disjoint_or_refused(block: dict[str, Any], details: dict[str, Any]) -> None:
    try:
        found = decompose({**block, "prompt_tokens_details": details})
    except UsageError:
        return
    inputs = sum(n for name, n in found.classes.items() if name not in ("output", "audio_output"))
    outputs = found.classes.get("output", 0) + found.classes.get("audio_output", 0)
    assert min(found.classes.values(), default=1) > 0
    assert (inputs, outputs) == (found.prompt_tokens, found.completion_tokens)
