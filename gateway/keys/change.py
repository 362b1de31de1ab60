"""Changes a key at Unkey and then here: name, description, end, what it may call and how often.

What is not named stays as it is, also what others have left at the key. Whatever fails on the way, running the command
again is right.
"""

import asyncio
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from gateway.accounts.announce import Announced, announce
from gateway.accounts.store import Accounts, KeyFields, KeyRow
from gateway.config.settings import Settings
from gateway.keys.at_unkey import meaning, unkey
from gateway.keys.bounds import (
    BoundsChange,
    Changed,
    changed,
    endpoint_permissions,
    limit,
    model_permissions,
    plain_bounds,
)
from gateway.keys.create import key_description, key_name
from gateway.keys.described import DescribedKey, unix_ms
from gateway.keys.key_permissions import change_permissions
from gateway.keys.show import linked_key
from gateway.keys.unkey_admin import RIGHTS_TO_SET, KeyAdmin, KeyChange, Pause
from gateway.kit.errors import OptionError
from gateway.kit.instants import parse_expiry, rfc3339
from gateway.stores.one_connection import database
from gateway.stores.postgres import in_transaction
from gateway.trail.record import Intent, intending
from gateway.trail.store import Deed

_WHY: Final = "a key is changed at Unkey first. Nothing was changed"
Tri = str | UnsetType | None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes different: UNSET stays as it is, None is cleared."""

    name: Tri = UNSET
    description: Tri = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    bounds: BoundsChange = BoundsChange()


def wanted(
    now: datetime,
    *,
    name: str | None,
    description: str | None,
    expires: tuple[str | None, bool],
    models: tuple[str | None, bool],
    endpoints: tuple[str | None, bool],
    rpm: tuple[int | None, bool],
    tpm: tuple[int | None, bool],
    concurrent: tuple[int | None, bool],
) -> Wanted:
    """From options: each value with whether its opposite was given. An empty name or description is none.

    Raises OptionError when one is wrong, when two contradict each other, or when there is nothing to set.
    """
    ends = _given("--expires", expires, "--no-expires")
    allowed = _given("--models", models, "--all-models"), _given("--endpoints", endpoints, "--all-endpoints")
    most = [
        _given(f"--{option}", pair, f"--no-{option}")
        for option, pair in (("rpm", rpm), ("tpm", tpm), ("concurrent", concurrent))
    ]
    for option, value in zip(("--rpm", "--tpm", "--concurrent"), most, strict=True):
        if isinstance(value, int):
            limit(option, value)
    change = Wanted(
        name=UNSET if name is None else key_name(name) if name else None,
        description=UNSET if description is None else key_description(description) if description else None,
        expires_at=parse_expiry(ends, "--expires", now) if isinstance(ends, str) else ends,
        bounds=BoundsChange(
            models=model_permissions(allowed[0]) if isinstance(allowed[0], str) else allowed[0],
            endpoints=endpoint_permissions(allowed[1]) if isinstance(allowed[1], str) else allowed[1],
            requests=most[0],
            tokens=most[1],
            concurrent=most[2],
        ),
    )
    if change == Wanted():
        raise OptionError("nothing to set: give --name, --description, --expires, --models, --endpoints, --rpm, …")
    return change


class ChangedKey(NamedTuple):
    """A key that was changed."""

    key: KeyRow
    """As it was."""
    before: DescribedKey
    after: DescribedKey
    different: dict[str, Any]
    """What is different: `{field: {from, to}}`."""
    ended: Announced | None
    """Who has heard of a new end; None where it has none."""


async def set_fields(settings: Settings, *, reference: str, change: Wanted, pause: Pause = asyncio.sleep) -> ChangedKey:
    """Changes the key with this id, ours or Unkey's.

    Raises OptionError when there is no such key, it is revoked, or Unkey does not know it or take a value; ConfigError,
    DependencyDown; the message says what was done.
    """
    async with unkey(settings, _WHY, pause) as admin:
        with meaning("Nothing was changed"):
            key = await linked_key(settings, reference)
            if key.revoked_at is not None:
                raise OptionError(f"key: {key.unkey_key_id} is revoked, and that is for good")
            before = await admin.describe_key(key.unkey_key_id)
            if before is None:
                raise OptionError(f"key: Unkey does not know {key.unkey_key_id}")
        plan = changed(before, change.bounds)
        fields = _fields(change) | plan.fields
        wanted = before._replace(**fields, permissions=tuple(plan.permissions))
        async with intending(settings, _deed(key, _different(key, before, wanted, change))) as intent:
            after = await _tell(admin, before, plan, fields)
            different = _different(key, before, after, change)
            await _keep(settings, key, change, intent, different)
    # Only the end is kept in PostgreSQL too, so it alone can take effect at once.
    ended = None if change.expires_at is UNSET else await announce(settings, keys=[key.unkey_key_id])
    return ChangedKey(key, before, after, different, ended)


def _deed(key: KeyRow, different: dict[str, Any]) -> Deed:
    old, new = ({name: one[side] for name, one in different.items()} for side in ("from", "to"))
    return Deed("set", "key", key.unkey_key_id, old, new)


async def _keep(settings: Settings, key: KeyRow, change: Wanted, intent: Intent, different: dict[str, Any]) -> None:
    """Changes our side."""
    with meaning(
        f"{key.unkey_key_id} is changed at Unkey, but not here: run this command again, or `gateway keys sync --repair`"
    ):
        async with database(settings, "the key is changed in PostgreSQL") as pool, in_transaction(pool) as connections:
            ours = KeyFields(name=change.name, description=change.description, expires_at=change.expires_at)
            if not await Accounts(connections).change_key(key.id, ours):
                raise OptionError(f"key: {key.unkey_key_id} was revoked meanwhile")
            await intent.succeed(connections, _deed(key, different).after)


async def _tell(admin: KeyAdmin, before: DescribedKey, plan: Changed, fields: dict[str, Any]) -> DescribedKey:
    """Changes the key at Unkey; how Unkey then describes it, which a replica may take seconds to know."""
    if not (plan.add or plan.remove or fields):
        return before
    with meaning(
        f"It did not confirm that {before.key_id} is changed, and here nothing was changed: run this command again",
        right=RIGHTS_TO_SET,
    ):
        await change_permissions(admin, before, plan)
        if fields and not await admin.update_key(before.key_id, KeyChange(**fields)):
            raise OptionError(f"key: Unkey does not know {before.key_id} any more")
        wanted = before._replace(**fields, permissions=tuple(plan.permissions))
        after = await admin.describe_when(before.key_id, lambda found: _looks(found) == _looks(wanted))
    if after is None:
        raise OptionError(f"key: Unkey does not know {before.key_id} any more")
    return after


def _looks(key: DescribedKey) -> tuple[Any, ...]:
    """What this command may change of a key, to be compared."""
    own = {one for one in key.ratelimits if one.of == "key"}
    return key.name, unix_ms(key.expires_at), frozenset(key.permissions), own, key.meta


def _given(option: str, pair: tuple[Any, bool], opposite: str) -> Any:
    """The value, None when its opposite was given, UNSET when neither was."""
    value, cleared = pair
    if value is not None and cleared:
        raise OptionError(f"{option} and {opposite} contradict each other: give one")
    return None if cleared else UNSET if value is None else value


def _fields(change: Wanted) -> dict[str, Any]:
    """Fields of a KeyChange, which have the names of a DescribedKey's; empty when only ours and its bounds change."""
    own: dict[str, Any] = {"name": change.name, "expires_at": change.expires_at}
    return {name: value for name, value in own.items() if value is not UNSET}


def _different(key: KeyRow, before: DescribedKey, after: DescribedKey, change: Wanted) -> dict[str, Any]:
    old: dict[str, Any] = {"name": before.name, "description": key.description, "expires_at": before.expires_at}
    new = old | {"name": after.name, "expires_at": after.expires_at}
    if change.description is not UNSET:
        new["description"] = change.description
    for document in (old, new):
        document["expires_at"] = rfc3339(document["expires_at"])
    old, new = old | plain_bounds(before), new | plain_bounds(after)
    return {name: {"from": old[name], "to": new[name]} for name in old if old[name] != new[name]}
