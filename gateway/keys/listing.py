"""Lists the keys that are linked here, as our database has them. Changes nothing.

Unkey is asked only for `--limits`: what a key may do is kept there.
"""

from datetime import datetime
from typing import Final, NamedTuple

from gateway.accounts.store import Accounts, KeyRow
from gateway.config.settings import Settings
from gateway.keys.at_unkey import key_pages, unkey
from gateway.keys.described import DescribedKey
from gateway.kit.errors import ConfigError, OptionError
from gateway.stores.one_connection import database

GONE: Final = ("revoked", "expired")
"""States that a key does not come back from; such keys are listed only when asked for."""


class ListedKeys(NamedTuple):
    """Keys, the oldest first."""

    keys: list[KeyRow]
    hidden: int
    """Revoked and expired ones that were left out."""
    bounds: dict[str, DescribedKey] | None
    """The keys of the Unkey API by their ids; None where Unkey was not asked."""


async def list_keys(
    settings: Settings, *, now: datetime, user: str | None = None, every: bool = False, limits: bool = False
) -> ListedKeys:
    """The keys of `user` (e-mail address or UUID), or of everybody.

    Without `every`, revoked and expired ones are left out. With `limits`, what binds each comes from Unkey
    (UNKEY_API_ID). Raises OptionError when there is no such user, ConfigError, DependencyDown.
    """
    async with database(settings, "the keys are listed from PostgreSQL") as pool:
        accounts = Accounts(pool)
        owner = None if user is None else await accounts.find(user.strip())
        if user is not None and owner is None:
            raise OptionError(f"user: there is no user {user}; `gateway users list` has them")
        found = await accounts.keys(None if owner is None else owner.id)
    keys = [key for key in found if every or state_of(key, now) not in GONE]
    bounds = await _bounds(settings, None if owner is None else owner.id) if limits else None
    return ListedKeys(keys, len(found) - len(keys), bounds)


def state_of(key: KeyRow, now: datetime) -> str:
    """What our database says of a key: `revoked`, `disabled`, `expired`, `user disabled` or `active`."""
    if key.revoked_at is not None:
        return "revoked"
    if not key.is_active:
        return "disabled"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    return "active" if key.user_is_active else "user disabled"


async def _bounds(settings: Settings, user_id: str | None) -> dict[str, DescribedKey]:
    """Keys of the Unkey API by their ids, those of one user or all."""
    if settings.unkey_api_id is None:
        raise ConfigError("UNKEY_API_ID is not set: --limits lists the keys of that API at Unkey")
    async with unkey(settings, "--limits asks Unkey") as admin:
        pages = key_pages(admin, settings.unkey_api_id, external_id=user_id)
        return {key.key_id: key async for page in pages for key in page}
