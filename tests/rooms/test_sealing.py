"""Envelopes: what opens, what never does, and what an error may say."""

import base64
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from gateway.config.key_ring import KeyRing, entry_of, is_key_id, parse_ring
from gateway.config.problems import problems
from gateway.config.settings import Settings
from gateway.rooms.sealing import (
    NONCE_BYTES,
    EnvelopeLocation,
    NotOpened,
    Sealed,
    Tampered,
    UnknownFormat,
    UnknownKey,
    open_sealed,
    seal,
)

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
RING = KeyRing({"new": NEW, "old": OLD})
PLACE = EnvelopeLocation("rooms", "00000000-0000-7000-8000-00000000000a", "sealed")
CANARY = "CANARY-5f3e"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(fields=st.dictionaries(st.text(), JSON))
def test_what_is_sealed_opens_again_and_nowhere_else(fields: dict[str, Any]) -> None:
    sealed = seal(RING, fields, PLACE, os.urandom)
    assert sealed.key_id == "new"
    assert open_sealed(RING, sealed, PLACE) == fields
    for other in (
        PLACE._replace(row_id="00000000-0000-7000-8000-00000000000b"),
        PLACE._replace(table="meetings"),
        PLACE._replace(column="data"),
    ):
        with pytest.raises(Tampered):
            open_sealed(RING, sealed, other)


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_any_changed_byte_is_noticed(at: int, flip: int) -> None:
    sealed = seal(RING, {"note": CANARY}, PLACE, os.urandom)
    changed = bytearray(sealed.envelope)
    changed[at % len(changed)] ^= flip
    with pytest.raises(NotOpened) as refused:
        open_sealed(RING, Sealed(bytes(changed), "new"), PLACE)
    assert CANARY not in str(refused.value)


@given(cut=st.integers(0, 10_000))
def test_a_cut_or_longer_envelope_is_noticed(cut: int) -> None:
    envelope = seal(RING, {"note": CANARY}, PLACE, os.urandom).envelope
    for wrong in (envelope[: cut % len(envelope)], envelope + b"\0", envelope[1:]):
        with pytest.raises(NotOpened):
            open_sealed(RING, Sealed(wrong, "new"), PLACE)


def test_wrong_key_unknown_key_and_a_relabelled_envelope_are_told_apart() -> None:
    sealed = seal(KeyRing({"old": OLD}), {"note": CANARY}, PLACE, os.urandom)
    assert open_sealed(RING, sealed, PLACE) == {"note": CANARY}  # half-rotated: the new key does not matter here
    with pytest.raises(UnknownKey, match="'old'"):
        open_sealed(KeyRing({"new": NEW}), sealed, PLACE)
    with pytest.raises(Tampered, match="'old'"):
        open_sealed(KeyRing({"old": NEW}), sealed, PLACE)
    with pytest.raises(Tampered):  # the right key under another id
        open_sealed(KeyRing({"other": OLD}), Sealed(sealed.envelope, "other"), PLACE)
    with pytest.raises(UnknownFormat):
        open_sealed(RING, Sealed(b"\2" + sealed.envelope[1:], "old"), PLACE)


def test_every_seal_has_a_nonce_of_its_own_from_where_it_is_told() -> None:
    asked: list[int] = []

    def zeros(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    assert seal(RING, {}, PLACE, zeros).envelope[1 : 1 + NONCE_BYTES] == bytes(NONCE_BYTES)
    assert asked == [NONCE_BYTES]
    assert len({seal(RING, {}, PLACE, os.urandom).envelope for _ in range(50)}) == 50


def test_no_repr_shows_a_key_or_an_envelope() -> None:
    sealed = seal(RING, {"note": CANARY}, PLACE, lambda size: b"n" * size)
    shown = repr(RING) + repr(sealed) + str(sealed)
    assert shown == f"KeyRing(new, old){repr(sealed) * 2}"
    assert "nnnn" not in shown
    assert repr(NEW)[2:-1] not in shown


def spelled(*entries: tuple[str, bytes]) -> str:
    return ",".join(entry_of(key_id, key) for key_id, key in entries)


def test_a_ring_is_read_as_it_is_spelled_newest_first() -> None:
    ring = parse_ring(" " + spelled(("k2", NEW), ("k1", OLD)).replace(",", " , "))
    assert (ring.ids, ring.newest, ring.key("k1"), ring.key("k3")) == (("k2", "k1"), "k2", OLD, None)
    dashed = base64.urlsafe_b64encode(b"\xff" * 32).decode()
    assert parse_ring(f"k:{dashed}").key("k") == b"\xff" * 32


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "entry 1 is empty"),
        (spelled(("a", OLD)) + ",", "entry 2 is empty"),
        (base64.b64encode(OLD).decode(), "entry 1 does not begin with an id"),
        ("a b:" + base64.b64encode(OLD).decode(), "entry 1 does not begin with an id"),
        ("a:not base64!", "entry 1: what follows the colon is not base64"),
        ("a:" + base64.b64encode(OLD[:31]).decode(), "entry 1: the key has 31 bytes, it must have 32"),
        (spelled(("a", OLD), ("a", NEW)), "entry 2 has the id of an earlier one"),
        (spelled(("a", OLD), ("b", OLD)), "entry 2 has the very key of an earlier one"),
    ],
)
def test_a_wrong_ring_is_told_by_its_place_and_never_shown(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        parse_ring(text)
    secrets = [part.rpartition(":")[2] for part in text.split(",") if part]
    assert not [secret for secret in secrets if secret in str(refused.value)]
    with pytest.raises(ValidationError) as invalid:
        Settings(rooms_keys=SecretStr(text))
    (line,) = problems(invalid.value, {"ROOMS_KEYS": text}, {}, None)
    assert says in line
    assert line.upper().startswith("ROOMS_KEYS")
    assert not [secret for secret in secrets if secret in line]


def test_ids_of_keys() -> None:
    assert [is_key_id(text) for text in ("k-1_a.b", "", "a/b", "a:b", "é", "x" * 65)] == [True] + [False] * 5


def test_a_number_that_is_none_is_not_sealed() -> None:
    with pytest.raises(ValueError, match="JSON"):
        seal(RING, {"a": float("nan")}, PLACE, os.urandom)
    assert json.dumps(open_sealed(RING, seal(RING, {"a": 10**400}, PLACE, os.urandom), PLACE)) == f'{{"a": {10**400}}}'
