"""The HTTP client of Stripe's SDK: an answer is Stripe's own, or an `UnreadableAnswer` with its status and headers.

The SDK's own client follows redirects (a POST then becomes a GET), raises AttributeError for some bodies that are not
Stripe's, and loses the headers of a body that is not JSON, and with them Retry-After (stripe-python 16.1.0).
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import stripe

_V1: Final = "/v1/"


class UnreadableAnswer(stripe.APIError):
    """An answer that is not one of Stripe's API: empty, HTML, a redirect, cut off. It says nothing of what happened."""


class Http(stripe.HTTPClient):
    """The SDK's HTTP over aiohttp, for a client that retries nothing. Without a session it has its own."""

    name = "aiohttp"

    def __init__(self, session: aiohttp.ClientSession | None, timeout: aiohttp.ClientTimeout) -> None:
        super().__init__()
        self._given: Final = session
        self._own: aiohttp.ClientSession | None = None
        self._limit: Final = timeout

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """One call. Raises APIConnectionError when no whole answer came, UnreadableAnswer when it is not Stripe's."""
        if self._given is None and self._own is None:
            self._own = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        session = self._given or self._own
        if session is None:
            raise AssertionError("there is one or the other")
        request = session.request(
            method, url, headers=headers, data=post_data, timeout=self._limit, allow_redirects=False
        )
        try:
            async with request as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            lost = stripe.APIConnectionError(f"no answer: {type(error).__name__}")  # type: ignore[no-untyped-call]
            raise lost from error
        if not is_stripes(response.status, body, is_v1=_V1 in url):
            told = {name.lower(): value for name, value in response.headers.items()}
            # Not the body: whatever stands between may repeat the request in it, with the key.
            raise UnreadableAnswer("an answer that is not Stripe's", http_status=response.status, headers=told)
        return body, response.status, response.headers

    async def close_async(self) -> None:
        """Closes what is its own."""
        if self._own is not None:
            await self._own.close()


def is_stripes(status: int, body: bytes, *, is_v1: bool) -> bool:
    """Whether an answer has the shape of Stripe's API: an object that says what it is, or an error with its type."""
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(read, dict):
        return False
    if not 200 <= status < 300:
        error = read.get("error")
        if status < 400 or not isinstance(error, dict) or not isinstance(error.get("message", ""), str):
            return False
        return isinstance(error.get("type"), str) or not is_v1
    if is_v1 and not isinstance(read.get("object"), str):
        return False
    if read.get("object") == "list":
        return _is_page(read) and isinstance(read.get("has_more"), bool)
    return is_v1 or "next_page_url" not in read or _is_page(read)


def _is_page(read: dict[str, Any]) -> bool:
    data = read.get("data")
    return isinstance(data, list) and all(isinstance(one, dict) for one in data)
