"""Makes an API key at Unkey, linked to a user here.

Never half done: a key that cannot be linked is deleted again, and where even that fails the message says which one.
The secret is returned once, and goes into no log and no error.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, NamedTuple

from gateway.accounts.identify import NAME_MAX, is_email
from gateway.accounts.store import Accounts, User
from gateway.config.settings import Settings
from gateway.keys.at_unkey import unkey
from gateway.keys.bounds import KeyBounds, warnings_of
from gateway.keys.unkey_admin import KeyAdmin, Pause
from gateway.kit.errors import ConfigError, DependencyDown, OptionError
from gateway.kit.ids import is_uuid
from gateway.stores.one_connection import database
from gateway.trail.record import intending, recording
from gateway.trail.store import Deed

MakeUser = Callable[[str], Awaitable[None]]
"""Makes the user with this e-mail address."""
UNBOUND: Final = KeyBounds()
DESCRIPTION_MAX: Final = 1000
_PREFIX: Final = re.compile(r"[A-Za-z0-9_]{1,16}", re.ASCII)


class CreatedKey(NamedTuple):
    """A linked key, with its secret for the one time that it is known."""

    secret: str
    unkey_key_id: str
    api_key_id: str
    """Our id of it, as in `openai_usage.api_key_id`."""
    user_id: str
    email: str
    name: str | None
    description: str | None
    expires_at: datetime | None
    user_created: bool
    warnings: tuple[str, ...] = ()
    """What about it does not do what it seems to, as far as the root key may look."""

    def __repr__(self) -> str:
        return f"CreatedKey(unkey_key_id={self.unkey_key_id!r}, user_id={self.user_id!r}, secret=…)"


async def create(
    settings: Settings,
    *,
    user: str,
    name: str | None = None,
    description: str | None = None,
    prefix: str | None = None,
    create_user: bool = False,
    expires_at: datetime | None = None,
    bounds: KeyBounds = UNBOUND,
    pause: Pause = asyncio.sleep,
) -> CreatedKey:
    """Makes a key for `user` (e-mail address or UUID). Raises OptionError, ConfigError naming the setting,
    DependencyDown (which says what became of a key that could not be linked).
    """
    values = ("DATABASE_URL", settings.database_url), ("UNKEY_ROOT_KEY", settings.unkey_root_key)
    missing = [name for name, value in (*values, ("UNKEY_API_ID", settings.unkey_api_id)) if not value]
    if settings.unkey_api_id is None or missing:
        raise ConfigError(f"{', '.join(missing)} must be set to make API keys")
    why = "a key is made there, and linked in PostgreSQL"
    wanted = {"user": user, "name": name, "expires_at": expires_at, **bounds._asdict()}
    async with database(settings, why) as pool, unkey(settings, why, pause) as admin:

        async def make_user(email: str) -> None:
            async with recording(settings, pool) as record:
                user_id = await Accounts(record.connections).create_user(email)
                await record.write(Deed("create", "user", user_id, None, {"email": email}))

        async with intending(settings, Deed("create", "key", None, None, wanted)) as intent:
            created = await create_key(
                Accounts(pool), admin, settings.unkey_api_id,
                user=user, name=name, description=description, prefix=prefix,
                make_user=make_user if create_user else None, expires_at=expires_at, bounds=bounds,
            )  # fmt: skip
            told = {"api_key_id": created.api_key_id, "user_id": created.user_id, "email": created.email}
            intent.learn(wanted | told, subject_id=created.unkey_key_id)
        return created._replace(warnings=await _warnings(admin, created, bounds))


async def create_key(
    accounts: Accounts,
    admin: KeyAdmin,
    api_id: str,
    *,
    user: str,
    name: str | None,
    make_user: MakeUser | None,
    expires_at: datetime | None,
    description: str | None = None,
    prefix: str | None = None,
    bounds: KeyBounds = UNBOUND,
) -> CreatedKey:
    """Finds or makes the user, makes the key at Unkey with externalId = users.id, and links it.

    Raises OptionError when the user or an option is wrong, else what Unkey and PostgreSQL raise; a key that could not
    be linked is deleted at Unkey first.
    """
    if name is not None:
        key_name(name)
    if description is not None:
        key_description(description)
    if prefix is not None and _PREFIX.fullmatch(prefix) is None:
        raise OptionError(f"--prefix: 1 to 16 letters, digits and _, not {prefix!r}")
    owner, user_created = await _owner(accounts, user, make_user)
    made = await admin.create_key(
        api_id,
        external_id=owner.id,
        name=name,
        expires_at=expires_at,
        permissions=bounds.permissions,
        per_minute=bounds.per_minute(),
        meta=bounds.meta(),
        prefix=prefix,
    )
    try:
        api_key_id = await accounts.link_key(
            owner.id, made.key_id, name=name, description=description, expires_at=expires_at
        )
    except asyncio.CancelledError:
        await asyncio.shield(take_back(admin, made.key_id))
        raise
    except Exception as error:
        told = await asyncio.shield(take_back(admin, made.key_id))
        raise DependencyDown("postgres", f"the key could not be linked to its user ({error}). {told}") from error
    return CreatedKey(
        made.secret, made.key_id, api_key_id, owner.id, owner.email, name, description, expires_at, user_created
    )


def key_name(name: str) -> str:
    """A name that a key can have. Raises OptionError."""
    if not 0 < len(name) <= NAME_MAX:
        raise OptionError(f"name: 1 to {NAME_MAX} characters, not {len(name)}")
    if not name.isprintable():
        raise OptionError(f"name: printable characters only, not {name!r}")
    return name


def key_description(text: str) -> str:
    """A description that a key can have; it may have lines. Raises OptionError."""
    if not 0 < len(text) <= DESCRIPTION_MAX:
        raise OptionError(f"--description: 1 to {DESCRIPTION_MAX} characters, not {len(text)}")
    if not text.replace("\n", "").isprintable():
        raise OptionError("--description: printable characters and line ends only")
    return text


async def _owner(accounts: Accounts, user: str, make_user: MakeUser | None) -> tuple[User, bool]:
    who = user.strip()
    found = await accounts.find(who)
    created = found is None and make_user is not None
    if found is None:
        if is_uuid(who):
            raise OptionError(f"user: there is no user {who}; a new one is made by e-mail address")
        if not is_email(who):
            raise OptionError(f"user: {who!r} is neither an e-mail address nor a UUID")
        if make_user is None:
            raise OptionError(f"user: there is no user {who}; --create-user makes one")
        await make_user(who)
        found = await accounts.find(who)
        if found is None:
            raise DependencyDown("postgres", f"the user {who} was made and cannot be read")
    if not found.is_active:
        raise OptionError(f"user: {found.email} is deactivated: a key of theirs would be refused")
    return found, created


async def take_back(admin: KeyAdmin, key_id: str) -> str:
    """Deletes a key that nobody knows of; returns a sentence on how that went."""
    try:
        deleted = await admin.delete_key(key_id)
    except (DependencyDown, ConfigError) as error:
        return (
            f"It exists at Unkey as {key_id} and could not be deleted there either ({error}): delete it in Unkey's "
            "dashboard. Its secret was shown to nobody."
        )
    if not deleted:  # its reads go to a replica: not found does not prove that there is none
        return (
            f"Unkey does not find it yet ({key_id}), so it was not deleted: it may be there in a moment, enabled, as a "
            "key of that user. Delete it in Unkey's dashboard before `gateway keys sync --repair`, which would link "
            "it. Its secret was shown to nobody."
        )
    return f"It has been deleted at Unkey again ({key_id}); nothing is left over."


async def _warnings(admin: KeyAdmin, created: CreatedKey, bounds: KeyBounds) -> tuple[str, ...]:
    """What does not hold of a key with limits, as far as the root key may look; it has been made either way."""
    if not bounds.per_minute():
        return ()
    try:
        key = await admin.describe_key(created.unkey_key_id)
    except (DependencyDown, ConfigError):
        return ()
    return () if key is None else tuple(warnings_of(key))
