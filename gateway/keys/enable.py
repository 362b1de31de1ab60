"""Disables and enables a key: Unkey is told first, our database second; a key works when both say so.

A revoked key is never enabled again. Whatever fails on the way, running the command again is right.
"""

from typing import Final, NamedTuple

from gateway.accounts.announce import Announced, announce
from gateway.accounts.store import Accounts, KeyRow
from gateway.config.settings import Settings
from gateway.keys.at_unkey import meaning, unkey
from gateway.keys.show import linked_key
from gateway.keys.unkey_admin import KeyAdmin, KeyChange
from gateway.kit.errors import OptionError
from gateway.stores.one_connection import database
from gateway.stores.postgres import in_transaction
from gateway.trail.record import Intent, intending
from gateway.trail.store import Deed

_WHY: Final = "a key is switched at Unkey first. Nothing was changed"
_UNSURE: Final = "It did not confirm that {key} is {verb}, and here nothing was changed: run this command again"
_RIGHT: Final = "api.*.update_key"
_HALF: Final = "{key} is {verb} at Unkey, but could not be marked so here: it is refused; run this command again"


class Switched(NamedTuple):
    """A key after it was switched."""

    key: KeyRow
    """As it is now."""
    was_active: bool
    known_to_unkey: bool
    announced: Announced


async def disable(settings: Settings, reference: str) -> Switched:
    """Makes a key be refused until it is enabled; one that is revoked stays so, one that Unkey does not know is
    marked all the same. Raises OptionError when no such key is linked, ConfigError, DependencyDown.
    """
    async with unkey(settings, _WHY) as admin:
        key = await _key(settings, reference)
        async with intending(settings, _deed("disable", key, is_active=False)) as intent:
            with meaning(_UNSURE.format(key=key.unkey_key_id, verb="disabled"), right=_RIGHT):
                known = await admin.update_key(key.unkey_key_id, KeyChange(enabled=False))
            with meaning(_HALF.format(key=key.unkey_key_id, verb="disabled" if known else "unknown")):
                await _mark(settings, key, intent, is_active=False)
    announced = await announce(settings, keys=[key.unkey_key_id])
    return Switched(key._replace(is_active=False), key.is_active, known, announced)


async def enable(settings: Settings, reference: str) -> Switched:
    """Lets a disabled key work again. Raises OptionError when no such key is linked, or it is revoked, or Unkey does
    not know it; ConfigError, DependencyDown.
    """
    async with unkey(settings, _WHY) as admin:
        key = await _key(settings, reference)
        if key.revoked_at is not None:
            raise OptionError(_revoked(key))
        async with intending(settings, _deed("enable", key, is_active=True)) as intent:
            with meaning(_UNSURE.format(key=key.unkey_key_id, verb="enabled"), right=_RIGHT):
                known = await admin.update_key(key.unkey_key_id, KeyChange(enabled=True))
            if not known:
                unknown = f"Unkey does not know {key.unkey_key_id}: it cannot be enabled. Nothing was changed"
                raise OptionError(f"key: {unknown}")
            with meaning(_HALF.format(key=key.unkey_key_id, verb="enabled")):
                marked = await _mark(settings, key, intent, is_active=True)
            if not marked:  # somebody revoked it while Unkey was told
                await _again_disabled(admin, key)
                raise OptionError(_revoked(key))
    announced = await announce(settings, keys=[key.unkey_key_id])
    return Switched(key._replace(is_active=True), key.is_active, True, announced)


def _deed(verb: str, key: KeyRow, *, is_active: bool) -> Deed:
    return Deed(verb, "key", key.unkey_key_id, {"is_active": key.is_active}, {"is_active": is_active})


async def _mark(settings: Settings, key: KeyRow, intent: Intent, *, is_active: bool) -> bool:
    """Whether the key could be marked: a revoked one cannot be, and then a disabled one is as it should be."""
    async with database(settings, "the key is marked in PostgreSQL") as pool, in_transaction(pool) as connections:
        marked = await Accounts(connections).set_key_active(key.id, is_active=is_active)
        if marked or not is_active:
            await intent.succeed(connections)
    return marked


async def _again_disabled(admin: KeyAdmin, key: KeyRow) -> None:
    with meaning(f"{key.unkey_key_id} was revoked meanwhile and is enabled at Unkey: run `gateway keys revoke` again"):
        await admin.update_key(key.unkey_key_id, KeyChange(enabled=False))


async def _key(settings: Settings, reference: str) -> KeyRow:
    with meaning("Nothing was changed"):
        return await linked_key(settings, reference)


def _revoked(key: KeyRow) -> str:
    return f"key: {key.unkey_key_id} is revoked, and that is for good; `gateway keys create` makes another one"
