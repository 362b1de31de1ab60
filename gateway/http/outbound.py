"""How the vendors are reached: directly or through a proxy."""

import aiohttp

from gateway.config.egress import DIRECT
from gateway.config.settings import Settings
from gateway.http.dial import open_socket


def proxy_for(settings: Settings, url: str) -> str | None:
    """The proxy through which `url` is reached; a secret. Plain http stays in one's own network, and goes straight."""
    given = settings.egress.proxy
    if given is None or given.get_secret_value() == DIRECT or not url.startswith("https://"):
        return None
    return given.get_secret_value()


def vendor_session(settings: Settings, url: str) -> aiohttp.ClientSession:
    """A session for the vendor at `url`; the caller closes it."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(socket_factory=open_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=proxy_for(settings, url),
    )
