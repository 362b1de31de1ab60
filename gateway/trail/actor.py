"""Who does something by hand."""

import getpass
import socket
from typing import Final, Literal, NamedTuple

from gateway.config.settings import Settings
from gateway.kit.errors import OptionError

NAME_MAX: Final = 1000


class Actor(NamedTuple):
    """Who has done something."""

    kind: Literal["operator", "key"]
    name: str
    """What an operator is called, or Unkey's id of a key."""


def operator(settings: Settings, by: str | None = None) -> Actor:
    """Whoever runs this command: as they say, else GATEWAY_OPERATOR, else the login here. Raises OptionError."""
    if by is not None:
        if not by.strip() or len(by) > NAME_MAX or not by.isprintable():
            raise OptionError(f"--by: a name of 1 to {NAME_MAX} printable characters")
        return Actor("operator", by.strip())
    return Actor("operator", settings.gateway_operator or _login())


def _login() -> str:
    try:
        login = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        login = "unknown"
    return f"{login}@{socket.gethostname()}"
