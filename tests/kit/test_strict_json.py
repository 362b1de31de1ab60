"""JSON that means one thing to everybody."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kit.strict_json import DEPTH_MAX, merge_patch, parse, size

LETTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
"""No half of a surrogate pair: those are refused, as the table below shows."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.text(LETTERS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_json_is_read_as_it_is(value: Any) -> None:
    assert parse(json.dumps(value).encode()) == value
    assert size(value) == len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not JSON: line 1, column 1"),
        (b'{"a": 1} x', "not JSON"),
        (b'"\xff"', "UTF-8"),
        (b'{"a": {"b": 1, "b": 2}}', "a name twice"),
        (b'{"a": 1, "\\u0061": 2}', "a name twice"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"[1e999]", "too large"),
        (b"[" + b"9" * 5000 + b"]", "too large"),
        (b'["\\u0000"]', "NUL"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'["\\ud800"]', "surrogate"),
        (b'["a\\udfffb"]', "surrogate"),
        (b'["\\udc00\\ud800"]', "surrogate"),
        (b'{"\\ud800": 1}', "surrogate"),
        (b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), "nested"),
        (b"[" * 100_000, "nested"),
    ],
)
def test_what_is_ambiguous_or_cannot_be_kept_is_refused(raw: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(raw)


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert parse(b'["\\ud83d\\ude00"]') == ["\N{GRINNING FACE}"]


def test_the_deepest_that_may_be() -> None:
    assert parse(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)


@given(st.dictionaries(st.text("abc"), VALUES), st.dictionaries(st.text("abc"), VALUES))
def test_a_merge_keeps_what_the_patch_does_not_name_and_is_the_same_twice(
    target: dict[str, Any], patch: dict[str, Any]
) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
    assert {name: value for name, value in once.items() if name not in patch} == {
        name: value for name, value in target.items() if name not in patch
    }
    assert not [name for name, value in patch.items() if value is None and name in once]


def test_the_examples_of_the_rfc() -> None:
    assert merge_patch({"a": "b", "c": {"d": "e", "f": "g"}}, {"a": "z", "c": {"f": None}}) == {
        "a": "z",
        "c": {"d": "e"},
    }
    assert merge_patch({"a": {"b": "c"}}, {"a": [1]}) == {"a": [1]}
    assert merge_patch({"a": [{"b": "c"}]}, {"a": {"b": {"x": None}}}) == {"a": {"b": {}}}
