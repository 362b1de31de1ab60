"""The counts of a document's structure against a parser's."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kit import json_structure
from gateway.kit.json_structure import Bounds, TooMuchStructure, check_structure

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet='\\"{}[],:a1é ', max_size=30),
    lambda inner: st.lists(inner, max_size=8)
    | st.dictionaries(st.text(alphabet='\\"{,', max_size=5), inner, max_size=5),
    max_leaves=60,
)  # fmt: skip


def counted(value: Any) -> Bounds:
    """By walking. Numbers of a list that holds at least two, and nothing else, are numbers; the rest are values."""
    if isinstance(value, dict):
        inner = [counted(each) for each in value.values()]
        return Bounds(
            1 + sum(i.objects for i in inner), 1 + sum(i.values for i in inner), sum(i.numbers for i in inner)
        )
    if isinstance(value, list):
        if len(value) > 1 and all(isinstance(each, int | float) and not isinstance(each, bool) for each in value):
            return Bounds(0, 2, len(value) - 1)  # the first one counts as a value
        inner = [counted(each) for each in value]
        return Bounds(sum(i.objects for i in inner), 1 + sum(i.values for i in inner), sum(i.numbers for i in inner))
    return Bounds(0, 1, 0)


MANY = 10**9


@given(st.lists(DOCUMENTS, min_size=1), st.sampled_from([1, 7, 64, 1 << 20]), st.booleans())
def test_a_document_passes_with_as_much_as_it_holds_and_not_with_less(
    documents: list[Any], piece: int, indented: bool
) -> None:
    document = [*documents, {"a": [1, 2, 3.5e-7]}]
    raw = json.dumps(document, indent=1 if indented else None, ensure_ascii=False).encode()
    held = counted(document)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_structure, "SMALL_BYTES", 0)
        patch.setattr(json_structure, "_PIECE_BYTES", piece)
        # An empty container counts as if it held something.
        check_structure(raw, Bounds(held.objects, 2 * held.values, held.numbers))
        with pytest.raises(TooMuchStructure, match="objects"):
            check_structure(raw, Bounds(held.objects - 1, MANY, MANY))
        patch.setattr(json_structure, "_count", lambda *_: MANY)  # always look closely
        with pytest.raises(TooMuchStructure, match="numbers"):
            json_structure._check_closely(
                json_structure._without_strings(raw, Bounds(0, MANY, 0)), Bounds(MANY, MANY, held.numbers - 1)
            )
        with pytest.raises(TooMuchStructure, match="values"):
            check_structure(raw, Bounds(MANY, held.values - 1, MANY))


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"[" + b"{}," * 11 + b"{}]", "objects"),
        (b"[" + b"[]," * 300 + b"[]]", "values"),
        (b"[" + b'"",' * 300 + b'""]', "values"),
        (b"[" + b"null," * 300 + b"1]", "values"),
        (b"[" + b"-1.5e+3 , " * 300 + b"1]", "numbers"),
        (b'["' + b"\\\\" * 9000 + b'",' + b"{}," * 20 + b"{}]", "objects"),
        (b'["' + b"\\\\" * 9000 + b'\\",' + b"{}," * 20 + b'{}"]', None),
        (b"[" + b"7," * 90 + b"7]", None),
        (b'["' + b"{}[],:" * 9000 + b'"]', None),
    ],
)
@pytest.mark.parametrize("piece", [1, 2, 3, 1000, 1 << 20])
def test_what_is_too_much(raw: bytes, what: str | None, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_structure, "SMALL_BYTES", 0)
    monkeypatch.setattr(json_structure, "_PIECE_BYTES", piece)
    bounds = Bounds(objects=10, values=100, numbers=100)
    if what is None:
        check_structure(raw, bounds)
        return
    with pytest.raises(TooMuchStructure) as raised:
        check_structure(raw, bounds)
    assert raised.value.what == what
