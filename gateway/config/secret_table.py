"""Which settings are secrets, and which of the gateway's processes need each. Pure.

A process is given what is listed for it and nothing else: one that is broken into must not lose what it never used.
A test compares the names with the settings that hold a secret.
"""

from typing import Final, Literal

Kind = Literal["proxy", "keeper", "worker", "sandbox"]
FILE: Final = "_FILE"
"""At the end of a secret's variable: the value is the file that holds the secret."""

_STORES: Final[frozenset[Kind]] = frozenset({"proxy", "keeper", "worker"})
NEEDED_BY: Final[dict[str, frozenset[Kind]]] = {
    # The login of each process itself: the parent hands it on as DATABASE_URL (database_logins.py).
    "database_url": _STORES,
    "proxy_database_url": frozenset(),
    "keeper_database_url": frozenset(),
    "worker_database_url": frozenset(),
    "reports_database_url": frozenset(),
    "redis_url": _STORES,
    "limits_redis_url": frozenset({"proxy", "worker"}),
    # The keeper and the worker ask OpenAI how calls ended that nobody saw the end of.
    "openai_api_key": _STORES,
    "unkey_root_key": frozenset({"proxy"}),
    "keys.canary": frozenset({"proxy"}),
    "stripe_secret_key": frozenset({"worker"}),
    "stripe_webhook_secret": frozenset({"proxy"}),
    "daily_api_key": frozenset({"worker"}),
    "daily_webhook_secret": frozenset({"proxy"}),
    "rooms_keys": frozenset({"proxy"}),
    # What one of them marks in Redis the others check.
    "gateway_secrets": _STORES,
    "egress.proxy": _STORES,
    # Only the command that closes a month signs.
    "close.signing_key": frozenset(),
}
"""Setting → processes. The sandbox has credentials of its own."""
UNUSED: Final = ("OPENAI_ADMIN_KEY", "OPENAI_WEBHOOK_SECRET")
"""Variables that are usual beside ours; no process is given them."""
ROTATED: Final = (
    "openai_api_key",
    "unkey_root_key",
    "stripe_secret_key",
    "stripe_webhook_secret",
    "daily_api_key",
    "daily_webhook_secret",
)
"""What a running gateway takes anew on SIGHUP; anything else needs a restart."""


def variable(name: str) -> str:
    """The environment variable of a setting: `keys.fresh_s` is KEYS__FRESH_S."""
    return name.replace(".", "__").upper()


def file_variable(name: str) -> str:
    """The variable that names the file of a secret."""
    return variable(name) + FILE
