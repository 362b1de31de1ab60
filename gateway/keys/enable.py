"""`gateway keys disable` and `enable`: Unkey is told first, our database second; a key works when both say so.

A revoked key is never enabled again. Whatever fails on the way, running the command again is right.
"""

from datetime import datetime
from typing import Final, NamedTuple

from gateway.accounts.announce import Announced, announce, as_fields, bound_of_end, bound_of_start, describe
from gateway.accounts.store import Accounts, KeyRow
from gateway.cli.console import Console
from gateway.cli.text import minute
from gateway.config.settings import Settings
from gateway.keys.at_unkey import meaning, unkey
from gateway.keys.listing import state_of
from gateway.keys.show import linked_key
from gateway.keys.unkey_admin import KeyAdmin, KeyChange
from gateway.kit.errors import OptionError
from gateway.kit.instants import rfc3339
from gateway.stores.one_connection import database

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


async def disable(settings: Settings, console: Console, *, reference: str, now: datetime, as_json: bool) -> Switched:
    """Makes a key be refused until it is enabled; one that is revoked stays so, one that Unkey does not know is
    marked all the same. Raises OptionError when no such key is linked, ConfigError, DependencyDown.
    """
    async with unkey(settings, _WHY) as admin:
        key = await _key(settings, reference)
        with meaning(_UNSURE.format(key=key.unkey_key_id, verb="disabled"), right=_RIGHT):
            known = await admin.update_key(key.unkey_key_id, KeyChange(enabled=False))
    with meaning(_HALF.format(key=key.unkey_key_id, verb="disabled" if known else "unknown")):
        async with database(settings, "the key is marked in PostgreSQL") as pool:
            await Accounts(pool).set_key_active(key.id, is_active=False)
    announced = await announce(settings, keys=[key.unkey_key_id])
    switched = Switched(key._replace(is_active=False), key.is_active, known, announced)
    _say(settings, console, switched, now=now, as_json=as_json)
    return switched


async def enable(settings: Settings, console: Console, *, reference: str, now: datetime, as_json: bool) -> Switched:
    """Lets a disabled key work again. Raises OptionError when no such key is linked, or it is revoked, or Unkey does
    not know it; ConfigError, DependencyDown.
    """
    async with unkey(settings, _WHY) as admin:
        key = await _key(settings, reference)
        if key.revoked_at is not None:
            raise OptionError(_revoked(key))
        with meaning(_UNSURE.format(key=key.unkey_key_id, verb="enabled"), right=_RIGHT):
            known = await admin.update_key(key.unkey_key_id, KeyChange(enabled=True))
        if not known:
            raise OptionError(f"key: Unkey does not know {key.unkey_key_id}: it cannot be enabled. Nothing was changed")
        with meaning(_HALF.format(key=key.unkey_key_id, verb="enabled")):
            async with database(settings, "the key is marked in PostgreSQL") as pool:
                marked = await Accounts(pool).set_key_active(key.id, is_active=True)
        if not marked:  # somebody revoked it while Unkey was told
            await _again_disabled(admin, key)
            raise OptionError(_revoked(key))
    announced = await announce(settings, keys=[key.unkey_key_id])
    switched = Switched(key._replace(is_active=True), key.is_active, True, announced)
    _say(settings, console, switched, now=now, as_json=as_json)
    return switched


async def _again_disabled(admin: KeyAdmin, key: KeyRow) -> None:
    with meaning(f"{key.unkey_key_id} was revoked meanwhile and is enabled at Unkey: run `gateway keys revoke` again"):
        await admin.update_key(key.unkey_key_id, KeyChange(enabled=False))


async def _key(settings: Settings, reference: str) -> KeyRow:
    with meaning("Nothing was changed"):
        return await linked_key(settings, reference)


def _revoked(key: KeyRow) -> str:
    return f"key: {key.unkey_key_id} is revoked, and that is for good; `gateway keys create` makes another one"


def _say(settings: Settings, console: Console, done: Switched, *, now: datetime, as_json: bool) -> None:
    key, keys = done.key, settings.keys
    within = 0 if done.announced.in_effect else keys.negative_s if key.is_active else keys.fresh_s
    if as_json:
        plain = {
            "key_id": key.unkey_key_id,
            "api_key_id": key.id,
            "email": key.email,
            "state": state_of(key, now),
            "was_active": done.was_active,
            "known_to_unkey": done.known_to_unkey,
            "revoked_at": rfc3339(key.revoked_at),
            "takes_effect_within_s": within,
            **as_fields(done.announced),
        }
        console.print_json(plain, indent=None)
    else:
        console.say(*_lines(settings, done, now))


def _lines(settings: Settings, done: Switched, now: datetime) -> list[str]:
    key = done.key
    named = f"{key.unkey_key_id} ({key.name or 'no name'}) of {key.email}"
    if key.is_active:
        lines = [f"{named} is enabled{' already' if done.was_active else ''}, at Unkey and here."]
        state = state_of(key, now)
        if state == "expired":
            lines.append(
                f"It expired at {minute(key.expires_at)} UTC: `gateway keys set --expires` gives it more time."
            )
        elif state == "user disabled":
            lines.append(f"Its user is disabled: `gateway users enable {key.email}` ends that.")
        return [*lines, describe(done.announced, bound_of_start(settings.keys))]
    if key.revoked_at is not None:
        return [f"{named} is revoked since {minute(key.revoked_at)} UTC, which is more than disabled."]
    lines = [f"{named} is disabled{'' if done.was_active else ' already'}: `gateway keys enable` ends that."]
    if not done.known_to_unkey:
        lines.append("Unkey does not know it: it was deleted there, or UNKEY_ROOT_KEY is of another workspace.")
    return [*lines, describe(done.announced, bound_of_end(settings.keys))]
