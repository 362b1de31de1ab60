"""Routing: which endpoint of the families (openai/families/) a method and path is. Pure.

Routing matches `raw_path` (never decoded, never joined to a URL) against strict patterns, and the upstream path
is rebuilt from the match, so no byte of a hostile path reaches OpenAI. What is
declared by no family is refused: nothing spends unmetered.
"""

import re
from typing import Final, NamedTuple

from gateway.openai.families.catalogue import ENDPOINT_OF
from gateway.openai.families.family import Endpoint


class MatchedRoute(NamedTuple):
    """A request that the catalogue knows: the upstream path is `/v1` less, built from what matched."""

    endpoint: Endpoint
    path: str
    object_id: str | None


CATALOGUE: Final = tuple(ENDPOINT_OF.values())
_QUERY: Final = re.compile(r"[A-Za-z0-9_\-.~=&\[\],:+%]{0,2000}")
_EXACT: Final = {entry.method + entry.pattern.pattern: entry for entry in CATALOGUE if "(" not in entry.pattern.pattern}


def match(method: str, raw_path: str) -> MatchedRoute | None:
    """The route of `raw_path` as it came over the wire (it begins with `/v1/`), or None: refuse it.

    A query string passes along only when it is made of plain query characters.
    """
    path, mark, query = raw_path.partition("?")
    if not path.startswith("/v1/") or (mark and _QUERY.fullmatch(query) is None):
        return None
    path = path[3:]
    exact = _EXACT.get(method + path)
    if exact is not None:
        return MatchedRoute(exact, path + mark + query, None)
    if ".." in path:
        return None
    for entry in CATALOGUE:
        if entry.method == method and (found := entry.pattern.fullmatch(path)) is not None:
            return MatchedRoute(entry, path + mark + query, found.groupdict().get("id"))
    return None
