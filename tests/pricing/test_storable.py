"""Text from outside can be stored: as JSON, in PostgreSQL, in an index; and the text of any answer can be found."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.readers.answer_text import answer_text
from pricing.readers.text import TEXT_CHARS_MAX, storable

ODD = st.text(st.characters(), max_size=600) | st.binary(max_size=600).map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)


@given(ODD)
def test_anything_becomes_storable(text: str) -> None:
    kept = storable(text)
    assert msgspec.json.decode(msgspec.json.encode(kept)) == kept
    assert "\0" not in kept
    assert len(kept) <= TEXT_CHARS_MAX
    assert storable(kept) == kept


@pytest.mark.parametrize("text", ["", "req_1", "gpt-5-mini", "é\u2028\U0001f600", "x" * TEXT_CHARS_MAX])
def test_what_can_be_stored_stays(text: str) -> None:
    assert storable(text) == text


def test_surrogates() -> None:
    assert storable(b"req_caf\xe9".decode("utf-8", "surrogateescape")) == "req_caf\ufffd"
    assert storable("\ud83d\ude00 \ud83d") == "\U0001f600 \ufffd"


ANSWERS: list[tuple[dict[str, Any], str]] = [
    (
        {"choices": [{"message": {"content": 'Hi "you"\n', "refusal": None}}, {"message": {"refusal": "No"}}]},
        'Hi "you"\nNo',
    ),
    (
        {"choices": [{"message": {"content": None, "tool_calls": [{"function": {"arguments": '{"a":"content"}'}}]}}]},
        '{"a":"content"}',
    ),
    ({"choices": [{"text": " Oslo"}]}, " Oslo"),
    (
        {"output": [{"content": [{"type": "output_text", "text": "Hi"}]}, {"arguments": "{}"}], "text": {"format": {}}},
        "Hi{}",
    ),
    ({"output": [{"type": "custom_tool_call", "input": "x = 1"}, {"summary": [{"text": "why"}]}]}, "x = 1why"),
    ({"object": "list", "data": [{"embedding": [0.5]}], "model": "m"}, ""),
]


@pytest.mark.parametrize(("answer", "text"), ANSWERS)
@pytest.mark.parametrize("indent", [None, 2])
def test_the_text_of_an_answer(answer: dict[str, Any], text: str, indent: int | None) -> None:
    body = json.dumps(answer, indent=indent).encode()
    assert answer_text(body) == text
    for at in range(len(body)):  # broken off anywhere
        part = answer_text(body[:at])
        assert len(part) <= len(text) + 8


@given(st.binary(max_size=300))
def test_any_bytes_have_some_text(body: bytes) -> None:
    assert isinstance(answer_text(b'{"content":"' + body), str)
