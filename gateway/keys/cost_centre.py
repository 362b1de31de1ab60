"""Where the cost of a key belongs. Kept here only: Unkey is not told."""

from typing import Final

from gateway.accounts.cost_centres import CostCentreOptions, set_cost_centre
from gateway.accounts.store import Accounts, KeyRow
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.stores.one_connection import database
from gateway.trail.record import recording
from gateway.trail.store import Deed

_WHY: Final = "cost centres are in PostgreSQL"


async def set_key_cost_centre(settings: Settings, *, reference: str, centre: CostCentreOptions) -> KeyRow:
    """Sets it for the key with this id, ours or Unkey's. Raises OptionError, ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool, recording(settings, pool) as record:
        key = await Accounts(record.connections).key(reference)
        if key is None:
            # Not repeated: it may be a secret that was taken for an id.
            raise OptionError("key: no key with this id is linked here; `gateway keys list --all` has all of them")
        after = await set_cost_centre(record, centre, key_id=key.id)
        await record.write(Deed("set", "key", key.unkey_key_id, None, after))
    return key
