"""Which web pages may call the API from a browser (`cors.origins`), with the headers that browsers check. Pure.

Cookies are never involved: a page that calls has the key in its own code, and sends it as a header (docs/clients.md
says what that means). So `Access-Control-Allow-Credentials` is not sent, and `*` may stand for every header.
"""

import re
from typing import Final

ANY: Final = "*"
METHODS: Final = "GET, HEAD, POST, DELETE"
PREFLIGHT_S: Final = 600
"""Seconds a browser may remember the answer to a preflight."""
_HEADERS: Final = re.compile(r"[A-Za-z0-9\-_, ]{0,2000}")


class Cors:
    """The answers for pages of these origins (`https://app.example`, or `*`)."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._origins: Final = frozenset(origins)

    def admits(self, origin: str | None) -> bool:
        """Whether pages of this origin may call."""
        return origin is not None and (ANY in self._origins or origin in self._origins)

    def headers(self, origin: str | None) -> dict[str, str]:
        """What any answer carries for a page of `origin`."""
        if ANY in self._origins:
            return {"Access-Control-Allow-Origin": ANY, "Access-Control-Expose-Headers": "*"}
        if origin is None or origin not in self._origins:
            return {"Vary": "Origin"}  # a cache must not give this answer to a page that may call
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "*", "Vary": "Origin"}

    def preflight(self, asked: str) -> dict[str, str]:
        """What the answer to a preflight carries beside that; `asked`: the header names that the page wants to send.

        They are repeated, because `*` does not cover Authorization (Fetch standard, CORS-preflight fetch).
        """
        return {
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": asked if _HEADERS.fullmatch(asked) else "authorization, content-type",
            "Access-Control-Max-Age": str(PREFLIGHT_S),
        }
