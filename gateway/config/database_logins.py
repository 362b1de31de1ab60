"""Which login of PostgreSQL each kind of process has: its own where one is set, else that of DATABASE_URL. Pure."""

from collections.abc import Mapping
from typing import Final, Literal, get_args

from gateway.config.settings import Settings

Process = Literal["proxy", "keeper", "worker", "reports"]
PROCESSES: Final[tuple[Process, ...]] = get_args(Process)


def setting(process: Process) -> str:
    """The setting with the URL of its login."""
    return f"{process}_database_url"


def with_own_login(settings: Settings, process: Process) -> Settings:
    """These settings, with `database_url` as this process uses it."""
    own = getattr(settings, setting(process))
    return settings if own is None else settings.model_copy(update={"database_url": own})


def environment_of(process: str, env: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The environment of a child, whose DATABASE_URL has its own login; it does not get the logins of the others."""
    others = {setting(each).upper() for each in PROCESSES}
    made = {name: value for name, value in env.items() if name.removesuffix("_FILE") not in others}
    own = getattr(settings, setting(process)) if process in PROCESSES else None
    if own is not None:
        made["DATABASE_URL"] = own.get_secret_value()
        made.pop("DATABASE_URL_FILE", None)
    return made
