"""What becomes of the values of an SQLite row, and the checksum over rooms."""

import json
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rooms.importing.mapping import Unmappable, guess, map_row, read_map
from gateway.rooms.importing.values import Checksum, Value, canonical, instant_of, json_value, key_text, uuid_of

AT = datetime(2026, 11, 24, 10, tzinfo=UTC)
VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()


@pytest.mark.parametrize(
    ("value", "at"),
    [
        (int(AT.timestamp()), AT),
        (AT.timestamp(), AT),
        (int(AT.timestamp()) * 1000 + 7, AT.replace(microsecond=7000)),
        (str(int(AT.timestamp())), AT),
        (f"{int(AT.timestamp())}.25", AT.replace(microsecond=250_000)),
        (99_999_999_999, datetime(5138, 11, 16, 9, 46, 39, tzinfo=UTC)),
        (100_000_000_000, datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),
        (-86_400, datetime(1969, 12, 31, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        ("2026-11-24T10:00:00Z", AT),
        ("2026-11-24 11:00:00+01:00", AT),
        ("2026-11-24 10:00:00", AT),
        (" 2026-11-24T10:00 ", AT),
        ("20261124", AT.replace(hour=0)),
        ("2026-11-24", AT.replace(hour=0)),
        ("", None),
        (None, None),
    ],
)
def test_instants(value: Value, at: datetime | None) -> None:
    assert instant_of(value) == at


@pytest.mark.parametrize(
    "value",
    ["soon", "24.11.2026", "2026-13-01", b"2026-11-24", 10**14, -(10**14), float("inf"), "0001-01-01T00:00+14:00"],
)
def test_an_invalid_instant_is_reported_without_its_value(value: Value) -> None:
    with pytest.raises(ValueError, match="is n") as refused:
        instant_of(value)
    assert str(value) not in str(refused.value)


@given(VALUES)
def test_whatever_a_cell_holds_is_json_and_stays_what_it_is_or_is_refused(value: Value) -> None:
    try:
        kept = json_value(value)
    except ValueError:
        assert value in (float("inf"), float("-inf"))
    else:
        assert json.loads(json.dumps(kept)) == kept


@given(st.lists(VALUES, min_size=1, max_size=3), st.lists(VALUES, min_size=1, max_size=3))
def test_two_keys_are_never_spelled_alike(one: list[Value], other: list[Value]) -> None:
    if None in one or None in other:
        return
    alike = [(type(each), repr(each)) for each in one] == [(type(each), repr(each)) for each in other]
    assert (key_text(one) == key_text(other)) == alike


def test_keys_that_are_plain_stay_legible() -> None:
    uuid = "00000000-0000-7000-8000-00000000000a"
    keys: list[list[Value]] = [[17], ["17"], ["room_a"], [uuid], [1, "a"], ["(1,a)"], [b"\1"]]
    assert [key_text(key) for key in keys] == ["17", '"17"', "room_a", uuid, "(1,a)", '"(1,a)"', "x'01'"]
    with pytest.raises(ValueError, match="NULL"):
        key_text([1, None])


def test_ids() -> None:
    uuid = "00000000-0000-7000-8000-00000000000a"
    spelled: tuple[Value, ...] = (uuid, uuid.upper(), uuid.replace("-", ""), bytes.fromhex(uuid.replace("-", "")))
    assert {uuid_of(value) for value in spelled} == {uuid}
    assert uuid_of("") is uuid_of(None) is None
    for wrong in (17, "x", b"x"):
        with pytest.raises(ValueError, match="not a UUID"):
            uuid_of(wrong)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1e300}, {"a": 10**300}, True),
        ({"a": 1.0}, {"a": 1}, True),
        ({"a": -0.0}, {"a": 0}, True),
        ({"a": 100}, {"a": 10}, False),
        ({"a": 0.1}, {"a": 0.10000000000000002}, False),
        ({"a": 10**40}, {"a": 10**40 + 1}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": None}, {}, False),
        ([1, 2], [2, 1], False),
        ({"a": AT}, {"a": "2026-11-24T10:00:00Z"}, True),
    ],
)
def test_what_counts_as_the_same(one: Any, other: Any, same: bool) -> None:
    assert (canonical(one) == canonical(other)) == same


@given(st.integers(-(10**6), 10**6), st.integers(0, 300))
def test_a_number_is_the_same_whether_written_with_an_exponent_or_in_full(digits: int, exponent: int) -> None:
    assert canonical(float(f"{digits}e{exponent}")) == canonical(digits * 10**exponent)
    assert canonical(float(f"{digits}e{exponent}")) != canonical(digits * 10**exponent + 1)


def test_a_checksum_knows_no_order_and_notices_a_row_that_is_there_twice() -> None:
    rows = [canonical({"n": number}) for number in range(50)]

    def checksum(of: list[bytes]) -> str:
        total = Checksum()
        for row in of:
            total.add(row)
        assert total.rows == len(of)
        return total.hex()

    shuffled = Random(3).sample(rows, len(rows))
    assert shuffled != rows
    assert checksum(shuffled) == checksum(rows)
    assert (
        len({checksum(rows), checksum(rows[1:]), checksum([*rows, rows[0]]), checksum([*rows, rows[0], rows[0]])}) == 4
    )


def test_a_guess_takes_names_at_their_word_only_where_values_bear_them_out() -> None:
    columns = ["id", "Room_Name", "room", "user_id", "status", "started", "name", "email", "created_at"]
    good: list[Value] = [1, "r", "x", "", "open", "2026-11-24", "Ann", "a@example.com", 5]
    bad: list[Value] = [1, "r", "x", 17, "x" * 65, "today", "Ann", "a@example.com", None]
    expected = {
        "id": "source_key", "Room_Name": "room_name", "room": "sealed.room", "user_id": "user_id", "status": "state",
        "started": "started_at", "name": "sealed.name", "email": "sealed.email", "created_at": "created_at",
    }  # fmt: skip
    assert guess(columns, ["id"], [good]) == expected
    sealed = {name: f"sealed.{name}" for name in ("user_id", "status", "started")}
    assert guess(columns, ["id"], [good, bad]) == expected | sealed


def test_a_column_that_is_not_mapped_is_sealed_and_the_key_is_not() -> None:
    mapping = read_map({"columns": {"room": "room_name"}, "prefix": "old/"}, ["id", "room", "who"], ["id"], "t")
    assert mapping.targets == {"id": "source_key", "room": "room_name", "who": "sealed.who"}
    mapped = map_row(mapping, {"id": 7, "room": "r", "who": None})
    assert (mapped.source_id, mapped.room_name, mapped.sensitive, mapped.data) == ("old/t:7", "r", {"who": None}, {})


def test_a_row_that_cannot_be_mapped_shows_no_value() -> None:
    mapping = read_map({"columns": {"room": "room_name", "at": "started_at"}}, ["id", "room", "at"], ["id"], "t")
    for wrong in ({"at": "CANARY"}, {"room": "CANARY\n"}, {"room": b"CANARY"}, {"id": "CANARY" * 100}):
        with pytest.raises(Unmappable) as refused:
            map_row(mapping, {"id": 7, "room": "r", "at": None, **wrong})
        assert "CANARY" not in str(refused.value)
