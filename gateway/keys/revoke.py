"""Revokes a key: Unkey is told first, our database second, so that what we call revoked works nowhere.

Whatever fails on the way, the message says what was done and what was not; running it again is always right.
"""

from datetime import datetime
from typing import Final, NamedTuple

from gateway.accounts.announce import Announced, announce
from gateway.accounts.store import Accounts, KeyRow
from gateway.config.settings import KeySettings, Settings
from gateway.keys.show import linked_key
from gateway.keys.unkey_admin import KeyAdmin, KeyChange
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.stores.one_connection import database
from gateway.stores.postgres import in_transaction
from gateway.trail.record import Intent, intending
from gateway.trail.store import Deed


class Revoked(NamedTuple):
    """A key that no proxy lets in any more, once those that remember it have heard of it."""

    key: KeyRow
    """As it was before."""
    revoked_at: datetime
    """When it was first revoked."""
    known_to_unkey: bool
    announced: Announced


async def revoke(settings: Settings, reference: str) -> Revoked:
    """Disables the key with this id, ours or Unkey's, at Unkey and then here.

    A key that Unkey does not know is marked here all the same. Raises OptionError when no such key is linked,
    ConfigError naming the setting, DependencyDown; the message says what was done.
    """
    if settings.unkey_root_key is None:
        raise ConfigError("UNKEY_ROOT_KEY is not set: a key is disabled at Unkey first. Nothing was changed")
    try:
        key = await linked_key(settings, reference)
    except DependencyDown as error:
        raise DependencyDown(error.what, f"{error.detail}. Nothing was changed: the key works as before") from error
    before = {"is_active": key.is_active, "revoked_at": key.revoked_at}
    async with intending(settings, Deed("revoke", "key", key.unkey_key_id, before)) as intent:
        known = await _disable(settings.unkey_root_key.get_secret_value(), settings.unkey_base_url, key)
        revoked_at = await _mark(settings, key, intent, known_to_unkey=known)
    return Revoked(key, revoked_at, known, await announce(settings, keys=[key.unkey_key_id]))


async def _disable(root_key: str, base_url: str, key: KeyRow) -> bool:
    """Whether Unkey knew the key; our database has not been touched yet when this raises."""
    here = "is marked revoked" if not key.is_active else "was not marked revoked"
    async with KeyAdmin(root_key, base_url=base_url) as admin:
        try:
            return await admin.update_key(key.unkey_key_id, KeyChange(enabled=False))
        except DependencyDown as error:
            raise DependencyDown(
                "unkey",
                f"{error.detail}. It did not confirm that {key.unkey_key_id} is disabled, and here the key {here}: "
                "take it to work until this command has succeeded; run it again",
            ) from error
        except ConfigError as error:
            raise ConfigError(
                f"{error}. {key.unkey_key_id} was not disabled at Unkey, and here it {here}; "
                "the root key needs api.*.update_key"
            ) from error


async def _mark(settings: Settings, key: KeyRow, intent: Intent, *, known_to_unkey: bool) -> datetime:
    try:
        async with database(settings, "the key is marked in PostgreSQL") as pool, in_transaction(pool) as connections:
            revoked_at = await Accounts(connections).revoke_key(key.id)
            after = {"is_active": False, "revoked_at": revoked_at, "known_to_unkey": known_to_unkey}
            await intent.succeed(connections, after)
    except DependencyDown as error:
        done = "is disabled at Unkey" if known_to_unkey else "is not known to Unkey"
        raise DependencyDown(
            "postgres",
            f"{error.detail}. {key.unkey_key_id} {done}, so it is refused all the same, but only within "
            f"{told_after_s(settings.keys):g} s, and it could not be marked revoked here: run this command again",
        ) from error
    if revoked_at is None:
        raise DependencyDown("postgres", f"the row of {key.unkey_key_id} is gone: it was there a moment ago")
    return revoked_at


UNKEY_STALE_S: Final = 600
"""Seconds for which a node of Unkey may answer with what it knew (Unkey's server source)."""


def told_after_s(keys: KeySettings) -> float:
    """Seconds after which every proxy goes by a change that only Unkey knows of, while Unkey answers."""
    return UNKEY_STALE_S + keys.fresh_s
