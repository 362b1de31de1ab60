"""The egress proxy through which the vendors are reached. Pure.

Its address may hold a password, so no message here quotes it.
"""

import base64
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

DIRECT: Final = "direct"
"""The value that says that no proxy is wanted, whatever the environment says to other programs."""
VARIABLES: Final = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
"""Where other programs look for the proxy of https addresses."""


class EgressProxy(NamedTuple):
    """A proxy that opens tunnels (CONNECT)."""

    host: str
    port: int
    user: str = ""
    password: str = ""

    @property
    def place(self) -> str:
        """Where it is, without the credential: `host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authorization(self) -> str | None:
        """The value of Proxy-Authorization; None where the proxy asks for none."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}" if self.user else None

    def __repr__(self) -> str:
        return f"EgressProxy({self.place})"


def parse_proxy(text: str) -> EgressProxy | None:
    """None for `direct`. Raises ValueError, without the value, when it is not the address of a proxy."""
    if text == DIRECT:
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("it is not a URL; escape special characters of the password (%2F for /)") from None
    if parts.scheme != "http" or not parts.hostname or port == 0:
        raise ValueError(f"it must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, or {DIRECT}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("nothing may follow the port; escape special characters of the password (%2F for /)")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if ":" in user:
        raise ValueError("the user must not have a colon")
    return EgressProxy(parts.hostname, 80 if port is None else port, user, password)


def unread_variable(environ: Mapping[str, str], host: str) -> str | None:
    """The variable in which a proxy for https and `host` is set for other programs; None when there is none."""
    for entry in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").lower().split(","):
        name = entry.strip().lstrip(".")
        if name == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return None
    return next((name for name in VARIABLES if environ.get(name)), None)
