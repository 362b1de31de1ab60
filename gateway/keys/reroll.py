"""Rerolls a key: a new one in the place of one that is linked, shown once; the old one ends at once or soon.

Until the new key is whole (same limits and permissions, linked, the credits its own) its secret is shown to nobody, and
whatever fails takes it back. Unkey copies what is left of the credits to the new key, which could then be spent twice
(Unkey's docs): the old key has none any more before the new one is shown. That does not stop it here, where a
verification costs none; ending it does. The secret goes to whoever asked, into no log and no error.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from gateway.accounts.announce import Announced, announce
from gateway.accounts.store import Accounts, KeyFields, KeyRow
from gateway.config.settings import Settings
from gateway.keys.at_unkey import meaning, unkey
from gateway.keys.bounds import carried
from gateway.keys.create import take_back
from gateway.keys.described import DescribedKey
from gateway.keys.listing import state_of
from gateway.keys.show import linked_key
from gateway.keys.unkey_admin import KeyAdmin, KeyChange, MadeKey, Pause
from gateway.kit.errors import DependencyDown, Expected, OptionError
from gateway.kit.instants import rfc3339
from gateway.stores.one_connection import database
from gateway.trail.record import intending
from gateway.trail.store import Deed

OVERLAP_MAX: Final = timedelta(days=90)


class Rerolled(NamedTuple):
    """A new key in the place of an old one, with its secret for the one time that it is known."""

    made: MadeKey
    api_key_id: str
    """Our id of the new key."""
    old: KeyRow
    ends_at: datetime | None
    """When the old key ends; None is at once."""
    credits: int | None
    """What went over to the new key; None is unlimited."""
    refill: str | None
    """How the credits come back, where Unkey did not give that to the new key."""
    budgets: int
    """Spending limits of the old key that hold for the new one as well."""
    ended: Announced | None = None
    """Who has heard that the old key ends; None where it may not."""


class Sides(NamedTuple):
    """Where a key lives."""

    admin: KeyAdmin
    accounts: Accounts


async def reroll(
    settings: Settings,
    *,
    reference: str,
    overlap: timedelta,
    now: datetime,
    show: Callable[[Rerolled], None],
    pause: Pause = asyncio.sleep,
) -> Rerolled:
    """Makes the new key, and ends the old one after `overlap`. `show` is told once, as soon as the new key is whole and
    its end was tried: whatever fails after that, its secret is not lost.

    When the old key could not be ended, the reason is raised after that. Raises OptionError
    when there is no such key, or it is not active, ConfigError, DependencyDown; the message says what holds.
    """
    async with AsyncExitStack() as stack:
        with meaning("Nothing was changed"):
            admin = await stack.enter_async_context(unkey(settings, "a key is rerolled at Unkey", pause))
            pool = await stack.enter_async_context(database(settings, "the new key is linked in PostgreSQL"))
            sides = Sides(admin, Accounts(pool))
            key = await linked_key(settings, reference)
            old = await _usable(admin, key, now)
        ends_at = _end(now, overlap, old)
        intent = await stack.enter_async_context(intending(settings, _deed(key, old, ends_at)))
        made = await _made(admin, key, old, now)
        intent.learn({"new_key_id": made.key_id, "ends_at": ends_at or now})
        done = await _whole(sides, key, old, made, ends_at)
        failed: BaseException | None = None
        try:
            await _end_old(sides, old, done)
            done = done._replace(ended=await announce(settings, keys=[key.unkey_key_id]))
        except (Expected, asyncio.CancelledError) as error:
            failed = error  # the new key is whole: its secret would be lost
        show(done)
        if failed is not None:
            raise failed
    return done


def _deed(key: KeyRow, old: DescribedKey, ends_at: datetime | None) -> Deed:
    return Deed("reroll", "key", key.unkey_key_id, {"ends_at": old.expires_at}, {"ends_at": ends_at})


async def _usable(admin: KeyAdmin, key: KeyRow, now: datetime) -> DescribedKey:
    """The key at Unkey. Raises OptionError unless it works on both sides and belongs to the same user there."""
    state = state_of(key, now)
    if state != "active":
        raise OptionError(f"key: {key.unkey_key_id} is not active ({state}): only a key that works is rerolled")
    old = await admin.describe_key(key.unkey_key_id)
    if old is None:
        raise OptionError(f"key: Unkey does not know {key.unkey_key_id}")
    if not old.enabled or (old.expires_at is not None and old.expires_at <= now):
        raise OptionError(f"key: {key.unkey_key_id} is disabled or expired at Unkey: only a key that works is rerolled")
    if old.external_id not in (None, key.user_id):
        raise OptionError(
            f"key: {key.unkey_key_id} belongs to {key.user_id} here, to externalId {old.external_id} at Unkey"
        )
    return old


def _end(now: datetime, span: timedelta, old: DescribedKey) -> datetime | None:
    """When the old key ends, to the millisecond as Unkey holds it; not later than it would have. None: at once."""
    if not span:
        return None
    at = now + span
    at -= timedelta(microseconds=at.microsecond % 1000)
    return at if old.expires_at is None else min(at, old.expires_at)


async def _made(admin: KeyAdmin, key: KeyRow, old: DescribedKey, now: datetime) -> MadeKey:
    left_ms = None if old.expires_at is None else (old.expires_at - now) // timedelta(milliseconds=1)
    with meaning(
        f"{key.unkey_key_id} works as before. If Unkey has made a new key all the same, nobody has seen its secret: "
        "`gateway keys sync` names it, delete it in Unkey's dashboard. Run this command again",
        right="api.*.create_key",
    ):
        made = await admin.reroll_key(key.unkey_key_id, ends_in_ms=left_ms)
    if made is None:
        raise OptionError(f"key: Unkey does not know {key.unkey_key_id} any more. Nothing was changed")
    return made


async def _whole(sides: Sides, key: KeyRow, old: DescribedKey, made: MadeKey, ends_at: datetime | None) -> Rerolled:
    """Gives the new key everything, its link and the credits; takes it back when something of that fails."""
    linked: list[str] = []
    try:
        with meaning(f"The new key {made.key_id} could not be made whole"):
            if made.end_moved:
                await sides.admin.update_key(old.key_id, KeyChange(expires_at=old.expires_at))
            new = await complete_key(sides.admin, old, made)
            linked.append(await _linked(sides.accounts, key, old, made))
            budgets = await sides.accounts.carry_budgets(key.id, linked[0])
            if old.credits is not None:
                await _move_credits(sides.admin, old, new)
    except BaseException as error:
        told = await asyncio.shield(_undo(sides, old, made, linked))
        if not isinstance(error, Expected):
            raise
        with meaning(told):
            raise
    refill = old.refill if old.refill != new.refill else None
    return Rerolled(made, linked[0], key, ends_at, old.credits, refill, budgets)


async def complete_key(admin: KeyAdmin, old: DescribedKey, made: MadeKey) -> DescribedKey:
    """The new key, with all that the old one has; it may take seconds until Unkey finds it."""
    new = await admin.describe_when(made.key_id, lambda _: True)
    if new is None or new.external_id != old.external_id:
        raise DependencyDown("unkey", "its new key is not there, or is somebody else's")
    lacking = carried(old, new)
    if lacking is not None:
        await admin.update_key(made.key_id, lacking)
        new = await admin.describe_when(made.key_id, lambda found: carried(old, found) is None) or new
    await admin.add_permissions(made.key_id, [name for name in old.permissions if name not in new.permissions])
    return new


async def _linked(accounts: Accounts, key: KeyRow, old: DescribedKey, made: MadeKey) -> str:
    """Our id of the new key."""
    try:
        return await accounts.link_key(
            key.user_id, made.key_id, name=key.name, description=key.description, expires_at=old.expires_at
        )
    except Exception as error:
        raise DependencyDown("postgres", f"it could not be linked to its user ({error})") from error


async def _move_credits(admin: KeyAdmin, old: DescribedKey, new: DescribedKey) -> None:
    """Leaves the old key without any, so that nothing can be spent twice."""
    if new.credits is None and old.credits is not None:  # not copied: the new key would be unlimited
        await admin.set_credits(new.key_id, old.credits)
    if not await admin.set_credits(old.key_id, 0):
        raise DependencyDown("unkey", f"it does not know {old.key_id} any more")


async def _undo(sides: Sides, old: DescribedKey, made: MadeKey, linked: list[str]) -> str:
    """Takes the new key back, as far as that goes; sentences on how it went. Nobody has seen its secret."""
    told = [await take_back(sides.admin, made.key_id)]
    try:
        for api_key_id in linked:
            await sides.accounts.revoke_key(api_key_id)
    except DependencyDown as error:
        told.append(f"Its row could not be marked revoked ({error}): `gateway keys sync --repair` does that.")
    if made.end_moved:
        try:
            await sides.admin.update_key(old.key_id, KeyChange(expires_at=old.expires_at))
        except Expected as error:
            ends = "never" if old.expires_at is None else rfc3339(old.expires_at)
            told.append(f"Whether {old.key_id} still ends as it did ({ends}) is not known ({error}): look there.")
    if old.credits is None or not linked:
        return " ".join([*told, f"{old.key_id} works as before"])
    try:
        await sides.admin.set_credits(old.key_id, old.credits)
    except Expected as error:
        told.append(f"Whether {old.key_id} still has its {old.credits:,} credits is not known ({error}): look there")
    else:
        told.append(f"{old.key_id} works as before, with its {old.credits:,} credits")
    return " ".join(told)


async def _end_old(sides: Sides, old: DescribedKey, done: Rerolled) -> None:
    key, at = done.old, done.ends_at
    change = KeyChange(enabled=False)
    if at is not None:
        change = KeyChange(expires_at=at, without_credits=old.refill is not None)
    with meaning(
        f"The new key works. That the old one ends was not confirmed, and without credits it works as well: "
        f"`gateway keys revoke {key.unkey_key_id}` ends it",
        right="api.*.update_key",
    ):
        await sides.admin.update_key(key.unkey_key_id, change)
    with meaning(
        f"The new key works, and the old one ends at Unkey, but could not be marked here: "
        f"`gateway keys {'revoke' if at is None else 'sync --repair'}` does that"
    ):
        if at is None:
            await sides.accounts.revoke_key(key.id)
        else:
            await sides.accounts.change_key(key.id, KeyFields(expires_at=at))
