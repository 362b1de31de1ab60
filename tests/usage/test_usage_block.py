"""No payload breaks a record: usage blocks on one line with every value as it was, frames that hold for any bytes."""

import json
import re
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.journal.frames import OPEN, SETTLE, Broken, describe_broken, frame, id_of, unframe
from gateway.usage.usage_block import BLOCK_BYTES_MAX, DEPTH_MAX, NO_USAGE, keep
from tests.support.events import new_id

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab \n"\\\t:,{}[]'), inner, max_size=4),
    max_leaves=12,
)
LAYOUTS = st.sampled_from([None, 0, 1, 2, 4, "\t", "\r", " \r\n "])
SPACE = st.text(" \t\r\n", max_size=4)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[ \t\r\n]+|[^"\s]+')


def compact(block: bytes) -> bytes:
    kept = keep(block)
    assert (kept.raw, kept.problem) == (None, None)
    return bytes(kept.usage)


def tokens(text: str) -> str:
    """The document without the white space between its tokens, found in another way than the code's."""
    return "".join(token for token in _TOKEN.findall(text) if token.strip(" \t\r\n"))


@given(st.dictionaries(TEXT, VALUES), LAYOUTS, st.booleans(), SPACE, SPACE)
def test_a_block_of_any_layout_becomes_one_line(
    value: dict[str, Any], layout: int | str | None, ascii_only: bool, before: str, after: str
) -> None:
    text = json.dumps(value, indent=layout, ensure_ascii=ascii_only)
    line = compact((before + text + after).encode())
    assert b"\n" not in line
    assert b"\r" not in line
    assert line.decode() == tokens(text)  # so names, order, digits and escapes are as they were
    assert json.loads(line) == value
    assert compact(line) == line


@pytest.mark.parametrize(
    "number", ["1.50E+3", "-0.0", "1e5", "0.10", "123456789012345678901234567890", "1E-7", "9007199254740993"]
)
def test_the_digits_of_a_number_stay(number: str) -> None:
    assert compact(f'{{\n  "n" : {number}\n}}'.encode()) == f'{{"n":{number}}}'.encode()


@pytest.mark.parametrize("text", ["1e999999", "2E+0000", "5e-123456", "9" * 2000, "0." * 600])
def test_text_that_looks_like_a_large_number_stays(text: str) -> None:
    assert compact(f'{{"{text}": "{text}"}}'.encode()) == f'{{"{text}":"{text}"}}'.encode()


@pytest.mark.parametrize("number", ["1e0001", "1E-4000", "1.5e+9999", "-0." + "1" * 1000, "[1,2e00000]"])
def test_a_number_that_a_numeric_may_not_hold_is_kept_as_bytes(number: str) -> None:
    block = f'{{"a":{number}}}'.encode()
    assert keep(block).raw == block


def test_escapes_and_names_twice_stay() -> None:
    block = b'{ "a\\u0062": "\\/\\u00e9\\n\xc3\xa9",\n "a": 1, "a": 2 }'
    assert compact(block) == b'{"a\\u0062":"\\/\\u00e9\\n\xc3\xa9","a":1,"a":2}'


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a" 1}', "not JSON"),
        (b'{"a":1} x', "not JSON"),
        (b'{"a":"line\nfeed"}', "not JSON"),
        (b'{"a":"\\ud800"}', "not JSON"),
        (b'{"a":"\xff"}', "not JSON"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
        (b'{"a":' + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX + b"}", "nested"),
        (b'{"a":' * (DEPTH_MAX + 1) + b"{" + b"}" * (DEPTH_MAX + 2), "nested"),
        (b'{"a":"' + b"x" * BLOCK_BYTES_MAX + b'"}', "65544 bytes"),
        (b'{"a":"\\u0000"}', "NUL"),
        (b'{"a\\\\\\u0000":1}', "NUL"),
        (b'{"a":1e999999}', "too large"),
        (b'{"a":-1.5E+131073}', "too large"),
        (b'{"a":' + b"9" * 2000 + b"}", "too large"),
    ],
)
def test_what_jsonb_cannot_hold_is_kept_as_bytes(block: bytes, why: str) -> None:
    kept = keep(block)
    assert bytes(kept.usage) == bytes(NO_USAGE)
    assert kept.raw == block[:BLOCK_BYTES_MAX]
    assert kept.problem is not None
    assert why in kept.problem
    assert "x" * 20 not in kept.problem


@pytest.mark.parametrize(
    "block",
    [
        b'{"a":"\\\\u0000"}',
        b'{"a":"1e999999"}',
        b'{"id":"3e2025"}',
        b'{"n":1e300}',
        b'{"a":"' + b"[" * 5000 + b'"}',
        b'{"a":[' + b",".join([b"[]"] * 500) + b"]}",
        b"[" * DEPTH_MAX + b"]" * DEPTH_MAX,
    ],
)
def test_what_only_looks_like_it_stays(block: bytes) -> None:
    assert compact(block) == block


@given(
    st.binary(min_size=1) | st.text(min_size=1).map(str.encode) | st.binary().map(lambda rest: rest + b"\n\n" + rest)
)
def test_a_frame_is_one_line_whatever_it_carries(payload: bytes) -> None:
    line = frame(SETTLE, payload)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert unframe(line[:-1]) == (SETTLE, payload.replace(b"\n", b" "))


@given(VALUES, LAYOUTS)
def test_a_frame_changes_no_value(value: Any, layout: int | str | None) -> None:
    found = unframe(frame(OPEN, json.dumps(value, indent=layout).encode())[:-1])
    assert found is not None
    assert json.loads(found[1]) == value


def test_what_a_broken_line_still_shows() -> None:
    event_id = new_id(Random(1))
    line = frame(SETTLE, b'{"id":"%b","usage":1}' % event_id.encode())[:-1].replace(b"usage", b"\nxxx").split(b"\n")[0]
    assert unframe(line) is None
    assert describe_broken(line) == Broken(SETTLE, event_id)
    assert describe_broken(b'    "total_tokens": 12,') == Broken(b"", None)


@given(st.binary())
def test_a_glimpse_never_fails(line: bytes) -> None:
    seen = describe_broken(line)
    if seen.event_id is not None:
        assert id_of(b'{"id":"%b"' % seen.event_id.encode()) == seen.event_id
