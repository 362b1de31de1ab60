"""`gateway keys create`: an API key at Unkey, linked to a user here, shown once.

Never half done: a key that cannot be linked is deleted again, and where even that fails the message says which one.
The secret goes to standard output only, never into a log or an error.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from gateway.accounts.identify import NAME_MAX, is_email
from gateway.accounts.store import Accounts, User
from gateway.cli.console import Console
from gateway.config.settings import Settings
from gateway.keys.bounds import KeyBounds, warnings_of
from gateway.keys.unkey_admin import KeyAdmin, MadeKey, Pause
from gateway.kit.errors import ConfigError, DependencyDown, OptionError
from gateway.kit.ids import is_uuid
from gateway.kit.instants import parse_expiry, rfc3339
from gateway.stores.postgres import open_pool

UNBOUND: Final = KeyBounds()
DESCRIPTION_MAX: Final = 1000
_PREFIX: Final = re.compile(r"[A-Za-z0-9_]{1,16}", re.ASCII)


class KeyStore(Protocol):
    """Looks users up, writes them and links of keys."""

    async def find(self, who: str) -> User | None: ...
    async def create_user(self, email: str) -> str: ...
    async def link_key(
        self,
        user_id: str,
        unkey_key_id: str,
        *,
        name: str | None,
        description: str | None,
        expires_at: datetime | None,
    ) -> str: ...


class KeyMaker(Protocol):
    """Makes and deletes keys at Unkey."""

    async def create_key(
        self,
        api_id: str,
        *,
        external_id: str,
        name: str | None,
        expires_at: datetime | None,
        permissions: Sequence[str] = (),
        per_minute: Mapping[str, int] | None = None,
        meta: Mapping[str, Any] | None = None,
        prefix: str | None = None,
    ) -> MadeKey: ...
    async def delete_key(self, key_id: str) -> bool: ...


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

    def __repr__(self) -> str:
        return f"CreatedKey(unkey_key_id={self.unkey_key_id!r}, user_id={self.user_id!r}, secret=…)"

    def to_json(self) -> dict[str, Any]:
        """Plain values, the secret as `key`."""
        return {
            "key": self.secret,
            "key_id": self.unkey_key_id,
            "api_key_id": self.api_key_id,
            "user_id": self.user_id,
            "email": self.email,
            "name": self.name,
            "description": self.description,
            "expires_at": rfc3339(self.expires_at),
            "user_created": self.user_created,
        }


async def create(
    settings: Settings,
    console: Console,
    *,
    user: str,
    now: datetime,
    name: str | None = None,
    description: str | None = None,
    prefix: str | None = None,
    create_user: bool = False,
    expires: str | None = None,
    bounds: KeyBounds = UNBOUND,
    as_json: bool = False,
    pause: Pause = asyncio.sleep,
) -> CreatedKey:
    """Makes a key for `user` (e-mail address or UUID), prints it once and returns it.

    `expires`: a date, an RFC 3339 time, or a span from `now` (30d, 12h, 90m, 2w). Raises OptionError, ConfigError
    naming the setting, DependencyDown (which says what became of a key that could not be linked).
    """
    database_url, root_key, api_id = settings.database_url, settings.unkey_root_key, settings.unkey_api_id
    missing = [
        variable
        for variable, value in (("DATABASE_URL", database_url), ("UNKEY_ROOT_KEY", root_key), ("UNKEY_API_ID", api_id))
        if not value
    ]
    if database_url is None or root_key is None or api_id is None or missing:
        raise ConfigError(f"{', '.join(missing)} must be set to make API keys")
    expires_at = None if expires is None else parse_expiry(expires, "expires", now)
    async with AsyncExitStack() as stack:
        pool = await open_pool(database_url.get_secret_value(), connections_max=1)
        stack.push_async_callback(pool.close)
        admin = await stack.enter_async_context(
            KeyAdmin(root_key.get_secret_value(), base_url=settings.unkey_base_url, pause=pause)
        )
        created = await create_key(
            Accounts(pool), admin, api_id,
            user=user, name=name, description=description, prefix=prefix,
            create_user=create_user, expires_at=expires_at, bounds=bounds,
        )  # fmt: skip
        warnings = await _warnings(admin, created, bounds)
    _show(console, created, warnings, as_json=as_json)
    return created


async def create_key(
    accounts: KeyStore,
    admin: KeyMaker,
    api_id: str,
    *,
    user: str,
    name: str | None,
    create_user: bool,
    expires_at: datetime | None,
    description: str | None = None,
    prefix: str | None = None,
    bounds: KeyBounds = UNBOUND,
) -> CreatedKey:
    """Finds or makes the user, makes the key at Unkey with externalId = users.id, and links it. Prints nothing.

    Raises OptionError when the user or an option is wrong, else what the edges raise; a key that could not be
    linked is deleted at Unkey first.
    """
    if name is not None:
        key_name(name)
    if description is not None:
        key_description(description)
    if prefix is not None and _PREFIX.fullmatch(prefix) is None:
        raise OptionError(f"--prefix: 1 to 16 letters, digits and _, not {prefix!r}")
    owner, user_created = await _owner(accounts, user, create_user=create_user)
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


async def _owner(accounts: KeyStore, user: str, *, create_user: bool) -> tuple[User, bool]:
    who = user.strip()
    found = await accounts.find(who)
    created = found is None and create_user
    if found is None:
        if is_uuid(who):
            raise OptionError(f"user: there is no user {who}; a new one is made by e-mail address")
        if not is_email(who):
            raise OptionError(f"user: {who!r} is neither an e-mail address nor a UUID")
        if not create_user:
            raise OptionError(f"user: there is no user {who}; --create-user makes one")
        await accounts.create_user(who)
        found = await accounts.find(who)
        if found is None:
            raise DependencyDown("postgres", f"the user {who} was made and cannot be read")
    if not found.is_active:
        raise OptionError(f"user: {found.email} is deactivated: a key of theirs would be refused")
    return found, created


async def take_back(admin: KeyMaker, key_id: str) -> str:
    """Deletes a key that nobody knows of; returns a sentence on how that went."""
    try:
        deleted = await admin.delete_key(key_id)
    except (DependencyDown, ConfigError) as error:
        return (
            f"It exists at Unkey as {key_id} and could not be deleted there either ({error}): delete it in Unkey's "
            "dashboard. Its secret was shown to nobody."
        )
    if not deleted:  # its reads go to a replica: not found is no proof that there is none
        return (
            f"Unkey does not find it yet ({key_id}), so it was not deleted: it may be there in a moment, enabled, as a "
            "key of that user. Delete it in Unkey's dashboard before `gateway keys sync --repair`, which would link "
            "it. Its secret was shown to nobody."
        )
    return f"It has been deleted at Unkey again ({key_id}); nothing is left over."


async def _warnings(admin: KeyAdmin, created: CreatedKey, bounds: KeyBounds) -> list[str]:
    """What does not hold of a key with limits, as far as the root key may look; it has been made either way."""
    if not bounds.per_minute():
        return []
    try:
        key = await admin.describe_key(created.unkey_key_id)
    except (DependencyDown, ConfigError):
        return []
    return [] if key is None else warnings_of(key)


def _show(console: Console, created: CreatedKey, warnings: list[str], *, as_json: bool) -> None:
    if as_json:
        console.print_json(created.to_json() | {"warnings": warnings}, indent=None)
        return
    until = "never expires" if created.expires_at is None else f"expires {created.expires_at:%Y-%m-%d %H:%M} UTC"
    made = " (new user)" if created.user_created else ""
    lines = (
        f"API key for {created.email}{made}, {until}. It is shown only this once:",
        "",
        f"  {created.secret}",
        "",
        f"name {created.name or '(none)'} · Unkey id {created.unkey_key_id} · user {created.user_id}",
        *(f"warning: {warning}" for warning in warnings),
    )
    console.say(*lines)
