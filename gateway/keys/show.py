"""Shows one key as our database has it, as Unkey has it, and where the two differ. Changes nothing.

Nothing of the secret is shown, not even how it begins.
"""

from typing import NamedTuple

from gateway.accounts.store import Accounts, KeyRow
from gateway.config.settings import Settings
from gateway.keys.described import DescribedKey
from gateway.keys.drift import Drift, find_drift
from gateway.keys.unkey_admin import KeyAdmin
from gateway.kit.errors import ConfigError, DependencyDown, OptionError
from gateway.stores.one_connection import database


class Shown(NamedTuple):
    """What is known of one key."""

    key: KeyRow
    unkey: DescribedKey | None
    """None when Unkey does not know it, or could not be asked (`problem`)."""
    problem: ConfigError | DependencyDown | None
    """Why Unkey did not say anything."""
    drift: list[Drift]


async def show_key(settings: Settings, reference: str) -> Shown:
    """The key with this id, ours or Unkey's, on both sides. Raises OptionError when there is no such key,
    DependencyDown("postgres"); that Unkey could not be asked is a `problem`: ConfigError or DependencyDown("unkey").
    """
    key = await linked_key(settings, reference)
    return await _ask(settings, key)


async def linked_key(settings: Settings, reference: str) -> KeyRow:
    """The key with this id, ours or Unkey's. Raises OptionError when there is none, ConfigError, DependencyDown."""
    wanted = reference.strip()
    if not wanted or not wanted.isprintable():
        raise OptionError("key: give its id (key_… or a UUID) as `gateway keys list` shows it")
    async with database(settings, "whose key it is stands in PostgreSQL") as pool:
        key = await Accounts(pool).key(wanted)
    if key is None:
        # The text is not repeated: it may be a secret that was taken for an id.
        raise OptionError("key: no key with this id is linked here; `gateway keys list --all` has all of them")
    return key


async def _ask(settings: Settings, key: KeyRow) -> Shown:
    if settings.unkey_root_key is None:
        return Shown(key, None, ConfigError("UNKEY_ROOT_KEY is not set: Unkey was not asked"), [])
    root_key = settings.unkey_root_key.get_secret_value()
    async with KeyAdmin(root_key, base_url=settings.unkey_base_url) as admin:
        try:
            unkey = await admin.describe_key(key.unkey_key_id)
        except (ConfigError, DependencyDown) as error:
            return Shown(key, None, error, [])
    return Shown(key, unkey, None, find_drift(key, unkey, owner_known=True))
