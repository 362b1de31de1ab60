"""Ids: UUIDv7 as the standard lays it out, children that never change, and the only form that is accepted."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.journal.frames import NOTE, OPEN, SETTLE, frame, id_of, unframe
from gateway.kit.ids import child_id, is_uuid, unix_ms_of, uuid7

MS = st.integers(0, (1 << 48) - 1)


@given(MS, st.integers(0, (1 << 80) - 1))
def test_uuid7_is_one(unix_ms: int, random: int) -> None:
    text = uuid7(unix_ms, random)
    parsed = uuid.UUID(text)
    assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, text)
    assert unix_ms_of(text) == unix_ms
    low = ((parsed.int >> 64 & 0xFFF) << 62) | (parsed.int & ((1 << 62) - 1))
    assert low == random % (1 << 74)
    assert is_uuid(text)
    assert is_uuid(text.upper())


@given(MS, MS, st.integers(0, (1 << 74) - 1), st.integers(0, (1 << 74) - 1))
def test_later_ids_sort_later(one: int, other: int, low: int, high: int) -> None:
    if one != other:
        assert (uuid7(one, low) < uuid7(other, high)) == (one < other)


@pytest.mark.parametrize("unix_ms", [-1, 1 << 48])
def test_an_instant_that_does_not_fit(unix_ms: int) -> None:
    with pytest.raises(ValueError, match="48 bits"):
        uuid7(unix_ms, 0)


@given(MS, st.integers(0, (1 << 74) - 1), st.text(), st.text())
def test_a_child_sorts_where_its_call_does(unix_ms: int, random: int, key: str, other: str) -> None:
    parent = uuid7(unix_ms, random)
    child = child_id(parent, key)
    parsed = uuid.UUID(child)
    assert (parsed.version, parsed.variant, str(parsed)) == (8, uuid.RFC_4122, child)
    assert unix_ms_of(child) == unix_ms_of(child_id(child, other)) == unix_ms
    assert child == child_id(parent.upper(), key)
    assert child != parent
    assert (child == child_id(parent, other)) == (key == other)
    assert child_id(child, key) != child


@given(MS, st.lists(st.integers(0, (1 << 74) - 1), min_size=2, max_size=20, unique=True))
def test_calls_of_one_instant_have_children_of_their_own(unix_ms: int, randoms: list[int]) -> None:
    assert len({child_id(uuid7(unix_ms, random), "exact") for random in randoms}) == len(randoms)


@given(MS, st.integers(0, (1 << 74) - 1))
def test_every_bit_of_the_hash_is_used(unix_ms: int, random: int) -> None:
    children = [uuid.UUID(child_id(uuid7(unix_ms, random), str(key))).int for key in range(64)]
    fixed = (1 << 128) - (1 << 80) | 0xF << 76 | 0b11 << 62
    vary = 0
    for child in children:
        vary |= child ^ children[0]
    assert vary == ((1 << 128) - 1) & ~fixed


def test_a_child_is_the_same_for_ever() -> None:
    assert child_id("0193a8f0-1234-7abc-8def-0123456789ab", "exact") == "0193a8f0-1234-8cf3-bdd8-3f130ae3ecf3"


@pytest.mark.parametrize(
    "text", ["", "x" * 36, "{" + "0" * 34 + "}", "0" * 32, "urn:uuid:" + "0" * 27, "0-0-0-0" + "0" * 29, "é" * 36]
)
def test_no_uuid(text: str) -> None:
    assert not is_uuid(text)


@given(st.sampled_from([OPEN, NOTE, SETTLE]), st.binary(min_size=1, max_size=80))
def test_frames_come_back(kind: bytes, payload: bytes) -> None:
    line = frame(kind, payload)
    assert line[-1:] == b"\n"
    assert b"\n" not in line[:-1]
    assert unframe(line[:-1]) == (kind, payload.replace(b"\n", b" "))


@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_changed_frame_does_not_read(payload: bytes, data: st.DataObject) -> None:
    line = frame(OPEN, payload)[:-1]
    bit = data.draw(st.integers(0, len(line) * 8 - 1))
    flipped = bytearray(line)
    flipped[bit // 8] ^= 1 << bit % 8
    assert unframe(bytes(flipped)) is None
    assert unframe(line[: data.draw(st.integers(0, len(line) - 1))]) is None


def test_the_id_of_a_payload() -> None:
    event_id = uuid7(5, 6)
    assert id_of(b'{"id":"' + event_id.encode() + b'","x":1}') == event_id
    for payload in (b"", b"{}", b'{"id":"short"}', b'{"x":1,"id":"' + event_id.encode() + b'"}'):
        with pytest.raises(ValueError, match="begins with its id"):
            id_of(payload)
