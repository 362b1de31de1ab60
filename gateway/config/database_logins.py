"""Which login of PostgreSQL each kind of process has: its own where one is set, else that of DATABASE_URL. Pure."""

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
