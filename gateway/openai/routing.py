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
_EXACT: Final = {
    (entry.method, f"/v1{entry.pattern.pattern}"): MatchedRoute(entry, entry.pattern.pattern, None)
    for entry in CATALOGUE
    if "(" not in entry.pattern.pattern
}


def match(method: str, raw_path: str) -> MatchedRoute | None:
    """The route of `raw_path` as it came over the wire (it begins with `/v1/`), or None: refuse it.

    A query string passes along only when it is made of plain query characters.
    """
    exact = _EXACT.get((method, raw_path))
    if exact is not None:
        return exact
    path, mark, query = raw_path.partition("?")
    if not path.startswith("/v1/") or (mark and _QUERY.fullmatch(query) is None):
        return None
    exact = _EXACT.get((method, path))
    path = path[3:]
    if exact is not None:
        return exact._replace(path=path + mark + query)
    if ".." in path:
        return None
    for entry in CATALOGUE:
        if entry.method == method and (found := entry.pattern.fullmatch(path)) is not None:
            return MatchedRoute(entry, path + mark + query, found.groupdict().get("id"))
    return None
