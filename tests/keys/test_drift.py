"""Where the two sides of a key differ: every case through the one judge; `keys show` and `keys sync` agree."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from gateway.access.identities import KeyOwners
from gateway.accounts.store import Accounts, KeyRow
from gateway.keys.described import DescribedKey
from gateway.keys.drift import find_drift
from gateway.ledger.store import Ledger
from gateway.sandbox.unkey.bodies import UpdateKey
from gateway.stores.postgres import Pool
from tests.keys.unkey_at_work import KeySides, key_sides_at

ANN: Final = "0193d5a0-0000-7000-8000-000000000001"
ENDS_MS: Final = 1_800_000_000_000
ENDS: Final = datetime(2027, 1, 15, 8, tzinfo=UTC)
BOUND: Final = {"permissions": ("openai.chat",)}
REVOKED: Final = {"is_active": False, "revoked_at": ENDS}
GONE: Final = None

CASES: Final[dict[str, tuple[dict[str, Any], dict[str, Any] | None, list[tuple[str, bool, str]]]]] = {
    "same": ({}, {}, []),
    "same_millisecond": ({"expires_at": ENDS.replace(microsecond=999)}, {"expires_at": ENDS}, []),
    "same_no_name": ({"name": None}, {"name": ""}, []),
    "both_disabled": ({"is_active": False}, {"enabled": False}, []),
    "disabled": ({"is_active": False}, {}, [("enabled", True, "disabled here, enabled at Unkey: the gateway refuses")]),
    "enabled": ({}, {"enabled": False}, [("enabled", True, "enabled here, disabled at Unkey: it is refused")]),
    "ends_here": ({"expires_at": ENDS}, {}, [("expires_at", True, "expires 2027-01-15T08:00:00Z here, never")]),
    "ends_there": ({}, {"expires_at": ENDS}, [("expires_at", True, "here, expires 2027-01-15T08:00:00Z at Unkey")]),
    "named": ({"name": "other"}, {}, [("name", True, "is named 'other' here, 'laptop' at Unkey")]),
    "moved": ({}, {"external_id": "somebody"}, [("owner", False, "to externalId somebody at Unkey")]),
    "ownerless": ({}, {"external_id": None}, [("owner", False, "Unkey has no externalId for it")]),
    "unmarked": ({}, BOUND, [("mark", True, "it is not marked so")]),
    "marked": ({}, BOUND | {"meta": {"bound": True}}, []),
    "gone": ({}, GONE, [("not_at_unkey", True, "Unkey does not know this key")]),
    "disabled_and_gone": ({"is_active": False}, GONE, [("not_at_unkey", True, "Unkey does not know this key")]),
    "revoked": (REVOKED, {"enabled": False}, []),
    "revoked_and_gone": (REVOKED, GONE, []),
    "revoked_otherwise": (REVOKED | {"name": "x", "expires_at": ENDS}, {"enabled": False, "external_id": None}, []),
    "zombie": (REVOKED | {"name": "x"}, BOUND, [("enabled", False, "revoked here, enabled at Unkey")]),
    "several": (
        {"name": "other", "is_active": False},
        {"external_id": None, "expires_at": ENDS} | BOUND,
        [("owner", False, ""), ("enabled", True, ""), ("expires_at", True, ""), ("name", True, ""), ("mark", True, "")],
    ),
}
"""What is otherwise here, what at Unkey (GONE: all of it), and each disagreement: kind, fixable, what is said."""


def row_of(**change: Any) -> KeyRow:
    same: dict[str, Any] = {"name": "laptop", "is_active": True, "expires_at": None, "revoked_at": None}
    return KeyRow(
        id="ours", unkey_key_id="key_ann", user_id=ANN, email="ann@example.com", user_is_active=True, description=None,
        usage_count=0, last_used_at=None, created_at=ENDS, **same | change,
    )  # fmt: skip


def described(**change: Any) -> DescribedKey:
    same: dict[str, Any] = {"name": "laptop", "enabled": True, "external_id": ANN, "expires_at": None}
    same |= {"permissions": (), "meta": {}}
    return DescribedKey(
        key_id="key_ann", created_at=ENDS, last_used_at=None, credits=None, refill=None, ratelimits=(), roles=(),
        **same | change,
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_case(name: str) -> None:
    here, there, expected = CASES[name]
    found = find_drift(row_of(**here), None if there is GONE else described(**there), owner_known=True)
    assert [(one.kind, one.fixable) for one in found] == [case[:2] for case in expected]
    for one, (_, _, says) in zip(found, expected, strict=True):
        assert says in one.means
        assert (one.key_id, one.api_key_id) == ("key_ann", "ours")


@pytest.mark.parametrize(
    ("external_id", "known", "says"),
    [
        (ANN, True, "`gateway keys sync --repair` links it"),
        ("somebody", False, "is not a user here"),
        (None, False, "it has no externalId"),
    ],
)
def test_a_key_without_a_row(external_id: str | None, known: bool, says: str) -> None:
    (one,) = find_drift(None, described(external_id=external_id), owner_known=known)
    assert (one.kind, one.fixable, one.at_unkey, one.api_key_id) == ("not_linked", known, external_id, None)
    assert says in one.hint
    unmarked = find_drift(None, described(**BOUND), owner_known=True)
    assert [drift.kind for drift in unmarked] == ["not_linked", "mark"]
    assert find_drift(None, None, owner_known=False) == []


@pytest.fixture
async def sides(database_url: str, ledger: Ledger, pool: Pool) -> AsyncIterator[KeySides]:
    async with key_sides_at(database_url, ledger, pool) as made:
        for name, (here, there, _) in CASES.items():
            await _make(made, name, here, there)
        yield made


async def _make(sides: KeySides, name: str, here: dict[str, Any], there: dict[str, Any] | None) -> None:
    """The key `key_<name>` as a case has it on both sides."""
    await sides.key(name)
    for column, value in ({"name": "laptop"} | here).items():
        await sides.pool.execute(f"update api_keys set {column} = $2 where unkey_key_id = $1", f"key_{name}", value)
    if there is None:
        await sides.gone(f"key_{name}")
        return
    change = {"name": "laptop"} | there
    if "expires_at" in change:
        change["expires"] = change.pop("expires_at") and ENDS_MS
    if "permissions" in change:
        change["permissions"] = list(change["permissions"])
    sides.sandbox.unkey.update_key(UpdateKey(key_id=f"key_{name}", **change))


async def test_show_and_sync_agree(sides: KeySides) -> None:
    synced = json.loads((await sides.run("sync", "--json")).out)["drift"]
    for one in synced:
        del one["outcome"]
    for name, (_, _, expected) in CASES.items():
        shown = await sides.json("show", f"key_{name}")
        assert shown["drift"] == [one for one in synced if one["key_id"] == f"key_{name}"], name
        assert [one["kind"] for one in shown["drift"]] == [kind for kind, _, _ in expected], name
        assert len(shown["differences"]) == len(expected)
        for told, (_, _, says) in zip(shown["differences"], expected, strict=True):
            assert says in told


async def test_calls_count_for_the_user_of_our_row(sides: KeySides) -> None:
    """Where the two owners differ: what the hint of `owner` says."""
    bob = await Accounts(sides.ledger.pool).create_user("bob@example.com")
    row = await sides.row("key_moved")
    linked = await KeyOwners(sides.ledger.pool).identity(bob, "key_moved")
    assert linked is not None
    assert (linked.user_id, linked.api_key_id) == (str(row["user_id"]), str(row["id"]))
