"""Which command may use which database: stand-ins must never meet the data of real customers, nor a real Stripe the
sandbox's.

A database is marked at the first start of `serve`, `worker` or `up`. One that has rows and no mark is production: it
was used before there were marks. The database that `up` keeps in its own data folder is always its own.
"""

from typing import Final, Literal
from urllib.parse import urlsplit

from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError
from gateway.kit.loopback import is_loopback
from gateway.stores.database_mark import Kind, connected, has_rows, read_mark, set_mark

Command = Literal["serve", "worker", "up"]
MONEY: Final = frozenset({"openai", "unkey", "stripe"})
"""The vendors that an invoice comes of."""
VENDORS: Final = MONEY | {"daily"}


def kind_of(command: Command, real: frozenset[str]) -> Kind:
    """What a database becomes at its first start."""
    return "sandbox" if command == "up" and "stripe" not in real else "production"


def refusal(command: Command, kind: Kind, real: frozenset[str], *, is_own: bool = False) -> str | None:
    """Why `command`, with these vendors real, must not use a database of this kind; None where it may.

    `is_own`: the database lies in the data folder of `up`, and nothing else has ever used it.
    """
    if kind == "sandbox":
        if "stripe" not in real:
            return None
        return (
            "DATABASE_URL: this is the database of a sandbox, and a real Stripe would charge for its calls. Use "
            "another database (for `up`: another GATEWAY_DATA_DIR), or no real Stripe."
        )
    if command != "up":
        return None
    # In its own folder the stand-in of Daily.co invents nothing about anybody's meetings.
    missing = sorted((MONEY if is_own else VENDORS) - real)
    if not missing:
        return None
    return (
        f"DATABASE_URL: this is the database of real customers, and `up` would use it with the sandbox for "
        f"{', '.join(missing)}. Unset DATABASE_URL (or name another GATEWAY_DATA_DIR), run `gateway serve`, or name "
        f"all vendors: --real {','.join(sorted(MONEY | real | set(missing)))}."
    )


def real_vendors(settings: Settings) -> frozenset[str]:
    """Vendors that are configured and are no stand-in, which listens on loopback only."""
    configured = {
        "openai": (settings.openai_api_key, settings.openai_base_url),
        "unkey": (settings.unkey_root_key, settings.unkey_base_url),
        "stripe": (settings.stripe_secret_key, settings.stripe_base_url),
        "daily": (settings.daily_api_key, settings.daily_base_url),
    }
    return frozenset(
        name
        for name, (secret, url) in configured.items()
        if secret is not None and not is_loopback(urlsplit(url).hostname or "")
    )


async def check_given(dsn: str, real: frozenset[str]) -> None:
    """Before `up` changes anything in a database that somebody has given it. Raises ConfigError, DependencyDown."""
    async with connected(dsn) as connection:
        kind = await read_mark(connection)
        if kind is None:
            kind = "production" if await has_rows(connection) else kind_of("up", real)
    _refuse("up", kind, real)


async def mark(dsn: str, command: Command, real: frozenset[str], *, is_own: bool = False) -> None:
    """Marks a migrated database at its first start. Raises ConfigError where `command` must not use it."""
    async with connected(dsn) as connection:
        kind = await read_mark(connection)
        if kind is None:
            fresh = is_own or not await has_rows(connection)
            kind = await set_mark(connection, kind_of(command, real) if fresh else "production", command)
    _refuse(command, kind, real, is_own=is_own)


def _refuse(command: Command, kind: Kind, real: frozenset[str], *, is_own: bool = False) -> None:
    reason = refusal(command, kind, real, is_own=is_own)
    if reason is not None:
        raise ConfigError(reason)
