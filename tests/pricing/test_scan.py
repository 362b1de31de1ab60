"""The scan of a passing body finds what json.loads finds: whatever the order, the formatting and the pieces."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.readers.scan import WANTED, Scan

NAMES = st.sampled_from([*sorted(WANTED), "output", "choices", "tools", "a", 'q"uo\\te', "é\u2028"])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(['"usage":{"x":1}', "\\", '\\"', "{[", "]}", '","id":"', "é\U0001f600"])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=20
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=8)
FORMATS: list[dict[str, Any]] = [
    {"separators": (",", ":")},
    {"indent": 2},
    {"indent": "\t", "ensure_ascii": False},
    {"separators": (" ,  ", "\r\n:\r\n ")},
]


def scanned(data: bytes, sizes: list[int], **options: Any) -> Scan:
    """The scan of `data` in pieces of these sizes, again and again."""
    scan, at, turn = Scan(**options), 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        scan.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    return scan


def item_ids(document: dict[str, Any]) -> list[Any]:
    output = document.get("output")
    items = output if isinstance(output, list) else []
    return [item["id"] for item in items if isinstance(item, dict) and "id" in item]


@settings(max_examples=400)
@given(DOCUMENTS, st.sampled_from(FORMATS), st.lists(st.integers(1, 9), min_size=1, max_size=5) | st.just([10**6]))
def test_as_json_loads(document: dict[str, Any], how: dict[str, Any], sizes: list[int]) -> None:
    data = b" \r\n" + json.dumps(document, **how).encode() + b"\n"
    scan = scanned(data, sizes)
    assert scan.complete
    assert {name: json.loads(raw) for name, raw in scan.members.items()} == {
        name: value for name, value in document.items() if name in WANTED
    }
    assert [json.loads(raw) for raw in scan.item_ids] == item_ids(document)
    every = scanned(data, sizes, wanted=None, value_max=10**9)
    assert {name: json.loads(raw) for name, raw in every.members.items()} == document


@given(DOCUMENTS, st.sampled_from(FORMATS), st.integers(0, 2000))
def test_a_part_is_never_complete(document: dict[str, Any], how: dict[str, Any], at: int) -> None:
    data = json.dumps(document, **how).encode()
    part = scanned(data[: min(at, len(data) - 1)], [7])
    assert not part.complete
    for name, raw in part.members.items():
        assert json.loads(raw) == document[name]


@given(st.binary(max_size=400), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_any_bytes_are_scanned_without_an_exception(data: bytes, sizes: list[int]) -> None:
    for start in (b"", b"{", b'{"usage":', b'{"output":[{"id":"'):
        whole, pieces = scanned(start + data, [10**6]), scanned(start + data, sizes)
        assert (whole.members, whole.item_ids, whole.complete) == (pieces.members, pieces.item_ids, pieces.complete)


@pytest.mark.parametrize("size", [1, 2, 3, 10**6])
def test_the_last_of_a_repeated_name(size: int) -> None:
    scan = scanned(b'{"model":"a","usage":{"x":{"model":"b"}},"model" : "c","\\u006dodel":"d"}{"model":"e"}', [size])
    assert scan.members == {"model": b'"d"', "usage": b'{"x":{"model":"b"}}'}
    assert scan.complete


@pytest.mark.parametrize("data", [b"", b"  ", b"[]", b"null", b"<html>", b'data: {"usage":{}}\n\n', b"\xff{}"])
def test_what_is_no_object_has_no_members(data: bytes) -> None:
    scan = scanned(data, [1])
    assert (scan.members, scan.complete) == ({}, False)


def test_memory_is_bounded() -> None:
    scan = Scan(value_max=1000)
    scan.feed(b'{"id":"r","' + b"k" * 5000)
    for _ in range(300):
        scan.feed(b"k" * 1000)
        assert len(scan._kept or b"") <= 1024
    scan.feed(b'":1,"usage":{"a":"')
    for _ in range(300):
        scan.feed(b"x" * 1000)
        assert len(scan._kept or b"") <= 1000
    scan.feed(b'"},"status":"completed"}')
    assert scan.complete
    assert (scan.members, scan.lost) == ({"id": b'"r"', "status": b'"completed"'}, {"usage"})


def test_a_mark_of_order_and_deep_nesting() -> None:
    scan = scanned(b'\xef\xbb\xbf{"deep":' + b"[" * 100_000 + b"]" * 100_000 + b',"usage":{"a":1}}', [1000])
    assert scan.members == {"usage": b'{"a":1}'}
    assert scan.complete
