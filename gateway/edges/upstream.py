"""OpenAI, seen from the proxy: sends one request, hands back the answer as it arrives.

Never retries, never follows a redirect, shares no cookie, decodes nothing (facts/attacks.md §2). Of a failure it
says one thing only: whether a byte of the request may have gone out.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import aiohttp
from yarl import URL

from gateway.core.errors import DependencyDown


class NotSent(DependencyDown):
    """No connection could be had: proven that nothing reached OpenAI."""


class Unanswered(DependencyDown):
    """The request went out, at least in part, and no answer came: the call may have run."""


def new_session(*, connect_s: float, read_s: float | None = None) -> aiohttp.ClientSession:
    """A session with the bounds of a metering proxy instead of aiohttp's defaults (300 s in all, 100 connections).

    `read_s` None leaves silent answers to whoever reads them: aiohttp would set a timer for every single read.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, keepalive_timeout=15),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=connect_s, sock_connect=connect_s, sock_read=read_s),
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        read_bufsize=256 * 1024,
    )


class Upstream:
    """Sends calls to `base_url` (it ends in `/v1`) with our credential."""

    def __init__(
        self, session: aiohttp.ClientSession, base_url: str, api_key: str, *, first_byte_s: float = 60.0
    ) -> None:
        """`first_byte_s`: seconds OpenAI has to begin its answer."""
        self._session: Final = session
        self._first_byte_s: Final = first_byte_s
        self._base: Final = base_url.rstrip("/")
        self._urls: Final[dict[str, URL]] = {}
        self._credential: Final = f"Bearer {api_key}"

    async def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> aiohttp.ClientResponse:
        """`path` comes from the catalogue and is appended to the base, never joined to it.

        Raises NotSent or Unanswered. The caller must read or close the response.
        """
        url = self._urls.get(path)
        if url is None:
            url = URL(self._base + path, encoded=True)
            if len(self._urls) < 64:
                self._urls[path] = url
        try:
            async with asyncio.timeout(self._first_byte_s):
                return await self._session.request(
                    method,
                    url,
                    data=body,
                    headers={**headers, "Authorization": self._credential, "Accept-Encoding": "identity"},
                    allow_redirects=False,
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotSent("openai", type(error).__name__) from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise Unanswered("openai", type(error).__name__) from error
