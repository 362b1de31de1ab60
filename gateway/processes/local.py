"""Everything on one machine: embedded servers, migrations, the vendors' stand-ins and the gateway, as one context.

`up` and `demo` are two ways to use it. Credentials of vendors in the environment are not used unless that vendor is
named as real, so that trying the gateway can never spend money.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway import embedded
from gateway.accounts.store import Accounts
from gateway.cli.text import Say
from gateway.config.database_logins import PROCESSES, setting
from gateway.config.key_ring import KEY_BYTES, entry_of
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError
from gateway.processes import marks
from gateway.processes.handed_settings import encode_settings, without_secrets
from gateway.processes.local_keys import known_root_key, read_root_key
from gateway.processes.preflight import check_egress
from gateway.processes.stack import Gateway, reserve
from gateway.processes.supervisor import Child, Watcher
from gateway.sandbox import credentials
from gateway.sandbox.server import mount_urls
from gateway.stores import migrator
from gateway.stores.one_connection import database
from gateway.stores.process_roles import make_logins

VENDORS: Final[dict[str, tuple[str, ...]]] = {
    "openai": ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ADMIN_KEY", "OPENAI_WEBHOOK_SECRET"),
    "unkey": ("UNKEY_ROOT_KEY", "UNKEY_API_ID", "UNKEY_BASE_URL"),
    "stripe": ("STRIPE_SECRET_KEY", "STRIPE_BASE_URL", "STRIPE_WEBHOOK_SECRET"),
    "daily": ("DAILY_API_KEY", "DAILY_WEBHOOK_SECRET", "DAILY_BASE_URL"),
}
"""Each vendor's variables of the environment."""
NEEDED: Final = {
    "openai": ("OPENAI_API_KEY",),
    "unkey": ("UNKEY_ROOT_KEY", "UNKEY_API_ID"),
    "stripe": ("STRIPE_SECRET_KEY",),
    "daily": ("DAILY_API_KEY", "DAILY_WEBHOOK_SECRET"),
}
"""What a vendor cannot be used without."""
RINGS: Final = ("ROOMS_KEYS", "GATEWAY_SECRETS")
"""Secrets of our own, made where the user has set none."""
SERVERS: Final = {"postgres": "DATABASE_URL", "valkey": "REDIS_URL"}


PUBLIC: Final = ("OPENAI_BASE_URL", "UNKEY_API_ID", "UNKEY_BASE_URL", "STRIPE_BASE_URL", "DAILY_BASE_URL")
"""Of these, what is not secret."""


def own_keys(real: frozenset[str]) -> list[str]:
    """Secrets of real vendors: only the user has them."""
    return [name for vendor in sorted(real) for name in NEEDED[vendor] if name not in PUBLIC]


def of_real_vendors(real: frozenset[str], settings: Settings) -> tuple[dict[str, str], dict[str, str]]:
    """What other terminals need of the real vendors (what is not secret, as in force), and what they must forget: the
    sandbox's credentials, which an earlier start may have left there.
    """
    names = [name for vendor in sorted(real) for name in VENDORS[vendor]]
    in_force = {name: getattr(settings, name.lower()) for name in names if name in PUBLIC}
    theirs = {name: value for name, value in in_force.items() if value is not None and "@" not in value}
    of_sandbox = {"UNKEY_ROOT_KEY": known_root_key(settings.gateway_data_dir)}
    made = {name: of_sandbox.get(name, getattr(credentials, name, None)) for name in names if name not in theirs}
    return theirs, {name: value for name, value in made.items() if value is not None}


@dataclass(frozen=True)
class Local:
    """A gateway that runs on this machine."""

    base_url: str
    sandbox_url: str
    settings: Settings
    env: Mapping[str, str]
    log: Path
    gateway: Gateway
    servers: embedded.Embedded | None
    """The embedded servers; None where both are somebody else's."""


def check_real(real: frozenset[str], environ: Mapping[str, str]) -> None:
    """Raises ConfigError: an unknown vendor, a half-configured one, or real Stripe billing sandbox calls."""
    unknown = sorted(real - VENDORS.keys())
    if unknown:
        raise ConfigError(f"--real: there is no vendor {unknown[0]!r}; choose from {', '.join(NEEDED)}")
    for vendor in sorted(real):
        missing = [name for name in NEEDED[vendor] if not environ.get(name)]
        if missing:
            raise ConfigError(f"--real {vendor}: not set: {', '.join(missing)}")
    if "stripe" in real and not {"openai", "unkey"} <= real:
        raise ConfigError("--real stripe: real money needs real calls of real users; add openai,unkey or leave it out")


def child_environment(
    environ: Mapping[str, str], real: frozenset[str], urls: Mapping[str, str], root_key: str, say: Say
) -> dict[str, str]:
    """The environment of the gateway's processes: real vendors as configured, the stand-ins for all others; `root_key`
    is that of the stand-in for Unkey.
    """
    env = dict(environ)
    for vendor, names in VENDORS.items():
        ignored = [name for name in names if name in env] if vendor not in real else []
        for name in ignored:
            del env[name]
        if ignored:
            say(f"ignoring {', '.join(ignored)}: {vendor} is the sandbox (use --real {vendor} for the real one)")
    stand_ins = {
        "openai": {"OPENAI_API_KEY": credentials.OPENAI_API_KEY, "OPENAI_BASE_URL": urls["openai"]},
        "unkey": {
            "UNKEY_ROOT_KEY": root_key,
            "UNKEY_API_ID": credentials.UNKEY_API_ID,
            "UNKEY_BASE_URL": urls["unkey"],
        },
        "stripe": {"STRIPE_SECRET_KEY": credentials.STRIPE_SECRET_KEY, "STRIPE_BASE_URL": urls["stripe"]},
        "daily": {
            "DAILY_API_KEY": credentials.DAILY_API_KEY,
            "DAILY_WEBHOOK_SECRET": credentials.DAILY_WEBHOOK_SECRET,
            "DAILY_BASE_URL": urls["daily"],
        },
    }
    for vendor, variables in stand_ins.items():
        if vendor not in real:
            env |= variables
    return env


@asynccontextmanager
async def running(
    data_dir: Path,
    environ: Mapping[str, str],
    *,
    real: frozenset[str],
    host: str,
    port: int,
    workers: int,
    say: Say,
    fsync: bool = True,
    watcher: Watcher | None = None,
    own_user: str | None = None,
) -> AsyncIterator[Local]:
    """The whole of it, ready to be called. `data_dir` is absolute; `own_user`: an e-mail address (upstream.own_user).

    Raises ConfigError, EmbeddedError, ChildFailed or MigrationFailed.
    """
    check_real(real, environ)
    wanted = frozenset(name for name, variable in SERVERS.items() if not environ.get(variable))
    is_own = "postgres" in wanted
    if not is_own:
        await marks.check_given(environ["DATABASE_URL"], real)
    async with AsyncExitStack() as stack:
        servers = None
        if wanted:
            servers = await embedded.start(data_dir, say=say, fsync=fsync, names=wanted)
            stack.push_async_callback(servers.stop)
        port = reserve(host, port, stack)
        sandbox_port = reserve("127.0.0.1", 0, stack)
        urls, root_key = mount_urls(f"http://127.0.0.1:{sandbox_port}"), read_root_key(data_dir)
        env = child_environment(environ, real, urls, root_key, say)
        check_egress(Settings.of(env), env)
        env["GATEWAY_DATA_DIR"] = str(data_dir)
        env |= {name: local_ring(data_dir, name.lower()) for name in RINGS if not env.get(name)}
        for name, variable in SERVERS.items():
            if servers is not None and name in wanted:
                env[variable] = servers.database_url if name == "postgres" else servers.redis_url
            else:
                say(f"using the server of {variable}")
        report = await migrator.migrate(env["DATABASE_URL"])
        say(f"database: {len(report.applied)} migration(s) applied, {report.already} there before")
        await marks.mark(env["DATABASE_URL"], "up", real, is_own=is_own)
        env |= await _own_logins(env["DATABASE_URL"]) if is_own else {}
        await _name_own_user(env, own_user)
        log_fd = _open_log(stack, log := data_dir / "gateway.log")
        settings = Settings.of(env)
        say("starting the sandbox and the gateway")
        await _start_sandbox(stack, settings, env, sandbox_port, log_fd)
        gateway = Gateway(settings, env, host=host, port=port, slots=range(workers), log_fd=log_fd, watcher=watcher)
        await gateway.start(stack)
        yield Local(
            base_url=f"http://{host}:{port}/v1",
            sandbox_url=f"http://127.0.0.1:{sandbox_port}",
            settings=settings,
            env=env,
            log=log,
            gateway=gateway,
            servers=servers,
        )


async def _own_logins(dsn: str) -> dict[str, str]:
    """A login for each process, on a server that is ours."""
    logins = await make_logins(dsn, PROCESSES)
    return {setting(process).upper(): logins[process] for process in PROCESSES}


async def _name_own_user(env: dict[str, str], email: str | None) -> None:
    """Makes the user if need be, before the proxies read their settings."""
    if email is not None and not env.get("UPSTREAM__OWN_USER"):
        async with database(Settings.of(env), "") as pool:
            env["UPSTREAM__OWN_USER"] = await Accounts(pool).create_user(email)


def _open_log(stack: AsyncExitStack, path: Path) -> int:
    log_fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, log_fd)
    return log_fd


async def _start_sandbox(
    stack: AsyncExitStack, settings: Settings, env: Mapping[str, str], port: int, log_fd: int
) -> None:
    where, line = ("--host", "127.0.0.1", "--port", str(port)), encode_settings(settings, "sandbox")
    sandbox = Child("sandbox", ("sandbox", *where), without_secrets(env), settings=line, log_fd=log_fd)
    stack.push_async_callback(sandbox.stop)
    await sandbox.start()


def local_ring(data_dir: Path, name: str) -> str:
    """The key ring of this folder, made once: it opens nothing but what this machine has sealed."""
    path = data_dir / "sandbox" / name
    if not path.exists():
        _keep(path, entry_of("local", os.urandom(KEY_BYTES)))
    return path.read_text("ascii").strip()


def local_key(data_dir: Path) -> str | None:
    """The sandbox key that an earlier start left for its owner to use again."""
    path = data_dir / "sandbox" / "key"
    return path.read_text("ascii").strip() if path.exists() else None


def keep_local_key(data_dir: Path, key: str) -> None:
    """Only ever a sandbox key: it opens nothing but the stand-ins of this folder."""
    _keep(data_dir / "sandbox" / "key", key)


def _keep(path: Path, secret: str) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(secret + "\n")
