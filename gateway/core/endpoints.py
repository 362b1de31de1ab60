"""The catalogue of OpenAI's API: for each method and path, what it is and who reads its usage. Pure.

Routing matches `raw_path` (never decoded, never joined to a URL) against strict patterns, and the upstream path
is rebuilt from the match, so no byte of a hostile path reaches OpenAI (facts/attacks.md A22, A23, A28). What is
not in the catalogue is refused: nothing spends unmetered (DESIGN "What holds" 7).
"""

import re
from typing import Final, Literal, NamedTuple

from pricing.stream import Shape

Kind = Literal["metered", "free", "counted", "owned"]
"""`metered`: costs money, has a row. `free`: no row. `counted`: free, but its body is that of a metered call and may
name what belongs to a user. `owned`: about an object that belongs to one user."""


class Endpoint(NamedTuple):
    """One entry of the catalogue."""

    name: str
    """The ledger's `endpoint`, also the pricing endpoint."""
    kind: Kind
    method: str
    pattern: re.Pattern[str]
    stream: Shape | None = None
    """The wire shape of its event stream; None when it never streams."""


class Route(NamedTuple):
    """A request that the catalogue knows: the upstream path is `/v1` less, built from what matched."""

    endpoint: Endpoint
    path: str
    object_id: str | None


_ID: Final = r"[A-Za-z0-9_\-]{1,200}"
_MODEL: Final = r"[A-Za-z0-9][A-Za-z0-9_\-.:]{0,199}"


def _entry(name: str, kind: Kind, method: str, path: str, stream: Shape | None = None) -> Endpoint:
    return Endpoint(name, kind, method, re.compile(path), stream)


CATALOGUE: Final = (
    _entry("chat", "metered", "POST", r"/chat/completions", "chat"),
    _entry("completions", "metered", "POST", r"/completions", "chat"),
    _entry("responses", "metered", "POST", r"/responses", "responses"),
    _entry("responses.compact", "metered", "POST", r"/responses/compact"),
    _entry("responses.input_tokens", "counted", "POST", r"/responses/input_tokens"),
    _entry("embeddings", "metered", "POST", r"/embeddings"),
    _entry("responses.get", "owned", "GET", rf"/responses/(?P<id>resp_{_ID})", "responses"),
    _entry("responses.delete", "owned", "DELETE", rf"/responses/(?P<id>resp_{_ID})"),
    _entry("responses.cancel", "owned", "POST", rf"/responses/(?P<id>resp_{_ID})/cancel"),
    _entry("responses.input_items", "owned", "GET", rf"/responses/(?P<id>resp_{_ID})/input_items"),
    _entry("moderations", "free", "POST", r"/moderations"),
    _entry("models", "free", "GET", r"/models"),
    _entry("models.get", "free", "GET", rf"/models/{_MODEL}"),
    _entry("traces.ingest", "free", "POST", r"/traces/ingest"),
)

_QUERY: Final = re.compile(r"[A-Za-z0-9_\-.~=&\[\],:+%]{0,2000}")
_EXACT: Final = {entry.method + entry.pattern.pattern: entry for entry in CATALOGUE if "(" not in entry.pattern.pattern}


def match(method: str, raw_path: str) -> Route | None:
    """The route of `raw_path` as it came over the wire (it begins with `/v1/`), or None: refuse it.

    A query string passes along only when it is made of plain query characters.
    """
    path, mark, query = raw_path.partition("?")
    if not path.startswith("/v1/") or (mark and _QUERY.fullmatch(query) is None):
        return None
    path = path[3:]
    exact = _EXACT.get(method + path)
    if exact is not None:
        return Route(exact, path + mark + query, None)
    if ".." in path:
        return None
    for entry in CATALOGUE:
        if entry.method == method and (found := entry.pattern.fullmatch(path)) is not None:
            return Route(entry, path + mark + query, found.groupdict().get("id"))
    return None
