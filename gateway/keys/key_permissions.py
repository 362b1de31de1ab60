"""Changes what a key may call at Unkey: exactly the permissions that change, and only where that makes it true.

Permissions of a key's roles stand among its own and cannot be told from them, until one that is taken from the key is
still there (Unkey's server source). Then a role gives it, and what was asked for would not hold.
"""

from gateway.keys.at_unkey import NothingChanged, meaning
from gateway.keys.bounds import Changed
from gateway.keys.described import DescribedKey
from gateway.keys.unkey_admin import RIGHTS_TO_SET, KeyAdmin
from gateway.kit.errors import OptionError


async def change_permissions(admin: KeyAdmin, key: DescribedKey, change: Changed) -> None:
    """Adds first, so that a bound key is bound at every moment. Raises NothingChanged when a role of the key makes the
    change untrue, with the key's own permissions as they were; OptionError when Unkey does not know the key."""
    if not await admin.add_permissions(key.key_id, change.add):
        raise _unknown(key)
    if not await admin.remove_permissions(key.key_id, change.remove):
        raise _unknown(key)
    if not key.roles or not change.remove:
        return
    after = await admin.describe_when(key.key_id, lambda found: not set(change.remove) & set(found.permissions))
    if after is None:
        raise _unknown(key)
    kept = sorted(set(change.remove) & set(after.permissions))
    if kept:
        with meaning(f"{key.key_id} was changed and could not be changed back", right=RIGHTS_TO_SET):
            await admin.add_permissions(key.key_id, [name for name in change.remove if name not in kept])
            await admin.remove_permissions(key.key_id, change.add)
        raise NothingChanged(
            f"key: its roles ({', '.join(key.roles)}) give it {', '.join(kept)}, so this would not hold. Nothing "
            f"was changed. Take the roles off {key.key_id}, or change what they allow, in Unkey's dashboard"
        )


def _unknown(key: DescribedKey) -> OptionError:
    return OptionError(f"key: Unkey does not know {key.key_id} any more")
