"""What the Unkey stand-in stores, and how it is read: by the replica, through the cache of the node that is asked."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Final

from gateway.sandbox.unkey.forms import not_found
from gateway.sandbox.unkey.identities import Identities
from gateway.sandbox.unkey.keys import Key, UnkeyState, refill
from gateway.sandbox.unkey.nodes import NODES, Cache, LoadedKey, Mode, Replica


class UnkeyStore:
    """Keys, identities and roles."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives Unix seconds."""
        self.kept = UnkeyState()
        self.mode = Mode()
        self.ahead_s = 0.0
        """How far a control call has moved the clock."""
        self.identities: Final = Identities(lambda: self.kept)
        self.ids: dict[str, str] = {}
        """Of every key that there ever was, by the hash of its secret."""
        self._clock: Final = clock
        self._nodes: Final = [Cache() for _ in range(NODES)]
        self._replica: Final = Replica()

    def load(self, kept: UnkeyState) -> None:
        """Takes over the keys of an earlier run."""
        self.kept = kept
        self.ids = {key.digest: key.key_id for key in kept.keys.values()}

    def now_s(self) -> float:
        """The server's time, Unix seconds."""
        return self._clock() + self.ahead_s

    def now_ms(self) -> int:
        """The server's time, Unix milliseconds."""
        return int(self.now_s() * 1000)

    def names(self) -> set[str]:
        """Permissions that the workspace has."""
        given = [*self.kept.roles.values(), *(key.permissions for key in self.kept.keys.values())]
        return self.kept.permissions.union(*given)

    def insert_key(self, key: Key) -> Key:
        """A new key; no node forgets that it was not there."""
        self.kept.keys[key.key_id], self.ids[key.digest] = key, key.key_id
        self._replica.record_write(key.key_id, None, self.now_s())
        return key

    def find_key(self, key_id: str) -> Key | None:
        """The key as the replica has it."""
        live = self.kept.keys.get(key_id)
        return self._replica.key(key_id, live, self.now_s() - self.mode.lag_s) if self.mode.lag_s else live

    def find(self, key_id: str) -> Key:
        """The key as the replica has it. Raises UnkeyError: 404."""
        key = self.find_key(key_id)
        if key is None:
            raise not_found("key")
        refill(key, self.now_ms())
        return key

    @contextmanager
    def change_key(self, key_id: str, *, clears: bool = True) -> Iterator[Key]:
        """The key, to be changed: found through the replica, written to the database, forgotten by the node."""
        self.find(key_id)
        key = self.kept.keys.get(key_id)
        if key is None:
            raise not_found("key")
        refill(key, self.now_ms())
        before = copy.deepcopy(key)
        yield key
        self._replica.record_write(key_id, before, self.now_s())
        if clears:
            self._nodes[self.mode.node].forget(key.digest)

    def look_up(self, secret: str) -> LoadedKey | None:
        """The key as the node that is asked has it."""
        hashed = digest(secret)
        if not self.mode.caches:
            return self._load(hashed)
        return self._nodes[self.mode.node].get(hashed, self.now_s(), lambda: self._load(hashed))

    def _load(self, hashed: str) -> LoadedKey | None:
        key = self.find_key(self.ids.get(hashed, ""))
        if key is None:
            return None
        refill(key, self.now_ms())
        return LoadedKey(key, self.kept.identities.get(key.external_id or ""), self.permissions_of(key))

    def permissions_of(self, key: Key) -> list[str]:
        """Those of the key itself and of its roles."""
        return [*key.permissions, *(name for role in key.roles for name in self.kept.roles.get(role, ()))]


def digest(secret: str) -> str:
    """All that is kept of a key's secret."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
