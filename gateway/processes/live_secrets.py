"""Secrets that change while a process runs.

On SIGHUP the parent reads its configuration again and hands the new secrets to its children, which use them from the
next request on; what runs goes on with the old ones. A configuration with a mistake changes nothing.
"""

import asyncio
import signal
from collections.abc import Callable
from typing import Any, Final

import structlog
from pydantic import SecretStr

from gateway.config.problems import names
from gateway.config.secret_table import ROTATED
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError

UseSecret = Callable[[str], None]
"""Takes the new value."""
_log: Final = structlog.get_logger("gateway.config")


class LiveSecrets:
    """In the process that uses them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._users: Final[list[tuple[str, UseSecret]]] = []

    def on_change(self, name: str, use: UseSecret) -> None:
        """`name`: one of ROTATED."""
        self._users.append((name, use))

    def take(self, settings: Settings) -> None:
        """From now on these."""
        changed = [name for name in ROTATED if _secret(settings, name) != _secret(self._settings, name)]
        self._settings = settings
        for name, use in self._users:
            value = _secret(settings, name)
            if name in changed and value is not None:
                use(value)
        if changed:
            _log.info("new secrets in use", settings=changed)


class Reload:
    """In the parent, which reads them."""

    def __init__(self, settings: Settings, read: Callable[[], Settings]) -> None:
        """`read` gives the settings as they are now, or raises ConfigError."""
        self.settings = settings
        self.receiver: Callable[[Settings], None] | None = None
        """Who is told; nobody while the processes have not been started."""
        self._read: Final = read

    def listen(self) -> None:
        """From now on SIGHUP is heard; without this it would end the process."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)

    def reload(self) -> None:
        """Once, now."""
        try:
            found = self._read()
        except ConfigError as error:
            _log.error("configuration not taken, the old one stays", problem=str(error))
            return
        self.settings, changed, left = rotate(self.settings, found)
        if left:
            _log.warning("settings changed that need a restart", settings=left)
        _log.info("configuration read again", changed=changed)
        if changed and self.receiver is not None:
            self.receiver(self.settings)


def rotate(old: Settings, new: Settings) -> tuple[Settings, list[str], list[str]]:
    """The settings to go on with, the secrets that changed, and what else did, which only a restart can change: a
    secret that was not there or is no longer there, too."""
    differing = [name for name in names() if _value(old, name) != _value(new, name)]
    changed = [name for name in differing if name in ROTATED and None not in (_value(old, name), _value(new, name))]
    update = {name: getattr(new, name) for name in changed}
    return old.model_copy(update=update), changed, [name for name in differing if name not in changed]


def _value(settings: Settings, name: str) -> Any:
    section, _, field = name.rpartition(".")
    return getattr(getattr(settings, section) if section else settings, field)


def _secret(settings: Settings, name: str) -> str | None:
    value = _value(settings, name)
    return value.get_secret_value() if isinstance(value, SecretStr) else None
