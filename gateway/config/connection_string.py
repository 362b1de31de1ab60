"""Parses a connection string in URL form. Pure. No message quotes a part of it, because any part may be secret.

urlsplit, which the drivers use, takes `u:pa/ss@host` for the host `u` with the port `pa`, and names the port in its
error. Here an `@` that stands anywhere but before the host is refused, and so is every `#`.
"""

import re
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

ESCAPES: Final = (
    "in a user name, password or value these must be percent-encoded: @ as %40, / as %2F, # as %23, ? as %3F, "
    "a space as %20"
)
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]+(%25\w+)?\]")
_PORT_MAX: Final = 65535
_ON: Final = ("1", "on", "true", "yes")
_OFF: Final = ("0", "off", "false", "no")


class Host(NamedTuple):
    """Where a server listens."""

    name: str
    """Of a Unix socket its path; an IPv6 address has no brackets."""
    port: int | None


class Parts(NamedTuple):
    """What a connection string says; everything decoded."""

    scheme: str
    user: str | None
    password: str | None
    hosts: tuple[Host, ...]
    path: str
    """What follows the first slash after the hosts."""
    options: dict[str, str]
    """Of an option that is said twice, the last value."""


def take_apart(text: str) -> Parts:
    """Raises ValueError with what would be right."""
    text = text.strip()
    if any(ord(character) <= ord(" ") or ord(character) == 0x7F for character in text):
        raise ValueError(f"there is a space or a line break in it; {ESCAPES}")
    scheme, _, rest = text.partition("://")
    place, _, query = rest.partition("?")
    authority, slash, path = place.partition("/")
    if "#" in rest or rest.count("@") > 1 or ("@" in rest and "@" not in authority):
        raise ValueError(f"it cannot be read: {ESCAPES}")
    login, at, hosts = authority.rpartition("@")
    user, colon, password = login.partition(":")
    return Parts(
        scheme,
        percent_decode(user) if at and user else None,
        percent_decode(password) if colon and password else None,
        tuple(_host(each) for each in hosts.split(",")) if hosts else (),
        percent_decode(path) if slash else "",
        _options(query),
    )


def percent_decode(text: str) -> str:
    """Without percent escapes. As libpq reads them: a plus is a plus."""
    try:
        plain = unquote_to_bytes(text).decode("utf-8")
    except UnicodeError:
        raise ValueError("a percent escape in it is not UTF-8; a percent sign itself is %25") from None
    if "\0" in plain:
        raise ValueError("there is a %00 in it")
    return plain


def _host(text: str) -> Host:
    plain = percent_decode(text)
    if plain.startswith("/"):
        return Host(plain, None)
    name, colon, port = (text, "", "") if text.endswith("]") else text.rpartition(":")
    if not colon:
        name, port = text, ""
    if not _HOST.fullmatch(name):
        raise ValueError(f"the host is neither a name nor an address; {ESCAPES}")
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port) <= _PORT_MAX):
        raise ValueError(f"the port is not a number from 1 to {_PORT_MAX}; {ESCAPES}")
    return Host(percent_decode(name.strip("[]")), int(port) if port else None)


def _options(query: str) -> dict[str, str]:
    options = {}
    for item in query.split("&") if query else []:
        name, mark, value = item.partition("=")
        if not mark:
            raise ValueError(f"an option after the ? has no value; {ESCAPES}, and & as %26")
        options[percent_decode(name)] = percent_decode(value)
    return options


def check_options(options: Mapping[str, str], known: Collection[str], secrets: Collection[str]) -> None:
    """Raises ValueError naming those that are not known. With a secret among the options no name is shown: what
    follows an unescaped & belongs to the secret.
    """
    unknown = sorted(name for name in options if name not in known)
    if unknown and any(name in options for name in secrets):
        raise ValueError(f"{len(unknown)} option(s) after the ? are not known; {ESCAPES}, and & as %26")
    if unknown:
        raise ValueError(f"not known here, remove it: {', '.join(name[:40] for name in unknown)}")


def one_of(options: Mapping[str, str], name: str, values: Collection[str]) -> None:
    """Raises ValueError when the option is there with a value that is not listed."""
    if name in options and options[name] not in values:
        raise ValueError(f"{name} must be {', '.join(values)}")


def whole_number(value: str | None, name: str) -> int | None:
    """The number, if there is one. Raises ValueError when it is something else."""
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= len(str(_PORT_MAX))):
        raise ValueError(f"{name} must be a whole number")
    return int(value)


def switch(options: Mapping[str, str], name: str) -> bool | None:
    """The option's value, if it is there. Raises ValueError when it is neither on nor off."""
    value = options.get(name)
    if value is None:
        return None
    if value.lower() not in (*_ON, *_OFF):
        raise ValueError(f"{name} must be true or false")
    return value.lower() in _ON
