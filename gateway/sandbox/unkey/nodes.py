"""How the Unkey stand-in is spread out: a database with a replica that lags, and API nodes that cache keys.

As Unkey's server source has it: a node keeps a key 10 s fresh and 600 s stale, returns
a stale entry once and refreshes it behind that; a write clears the node that took it and no other. Both are off until
a control call turns them on: then nothing happens by itself, because a test moves the clock.
"""

import copy
import math
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from gateway.sandbox.unkey.keys import Key, StoredIdentity

FRESH_S: Final = 10.0
STALE_S: Final = 600.0
NODES: Final = 2


class Mode(msgspec.Struct, forbid_unknown_fields=True):
    """How the server behaves; what a control call does not name is as here."""

    caches: bool = False
    """Whether the nodes cache what they have read of a key."""
    node: int = 0
    """Which of the two nodes takes the requests from now on."""
    lag_s: float = 0.0
    """How far the replica, by which every key is found, is behind."""
    limiter_down: bool = False
    """Verifications go on without their limits."""
    permissions_hidden: bool = False
    """A verification that asks for no permissions is told none, as the API's description has it."""
    strict_nulls: bool = False
    """An older server: `expiration: null` and `ratelimits: null` are 400."""
    per_minute: int | None = None
    """Requests that the workspace may send in a minute; the others are 429."""


class LoadedKey(NamedTuple):
    """A key as a verification needs it."""

    key: Key
    identity: StoredIdentity | None
    permissions: list[str]
    """Of the key and of its roles; one may come twice."""


class Cache:
    """What one node remembers of keys, by the hash of their secret. None is a key that was not found."""

    def __init__(self) -> None:
        self._entries: Final[dict[str, tuple[float, LoadedKey | None]]] = {}

    def get(self, digest: str, now_s: float, load: Callable[[], LoadedKey | None]) -> LoadedKey | None:
        """The key, possibly as it was up to ten minutes ago: then the next answer is of now."""
        at_s, found = self._entries.get(digest, (-math.inf, None))
        age_s = now_s - at_s
        if age_s < FRESH_S:
            return found
        fresh = copy.deepcopy(load())
        self._entries[digest] = now_s, fresh
        return found if age_s < STALE_S else fresh

    def forget(self, digest: str) -> None:
        """A write to this node."""
        self._entries.pop(digest, None)


class Replica:
    """What a reader does not see yet: each key as it was before its latest writes."""

    def __init__(self) -> None:
        self._before: Final[dict[str, list[tuple[float, Key | None]]]] = {}

    def record_write(self, key_id: str, before: Key | None, now_s: float) -> None:
        """A write, `before` being a copy of the key as it was, None for a new one."""
        self._before.setdefault(key_id, []).append((now_s, before))

    def key(self, key_id: str, live: Key | None, seen_until_s: float) -> Key | None:
        """The key as of an instant; `live` is how it is now."""
        unseen = [before for at_s, before in self._before.get(key_id, ()) if at_s > seen_until_s]
        return unseen[0] if unseen else live
