"""The calls in flight of every host, in Redis: what can be settled of a host that is lost with its disk.

A host writes its own and renews its lease with every write. What it wrote is counted in the lease, so a Redis that has
lost writes (a flush, a failover) gives another number than the next one, and everything is written again. The records
are signed as the stream's entries are: whoever can only write to Redis cannot make a row.
"""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from math import ceil
from typing import Any, Final, NamedTuple, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from gateway.hosts.identity import KnownHost
from gateway.kit.errors import DependencyDown, DependencyRefused
from gateway.kit.ids import is_uuid
from gateway.ledger.signing import EntrySigner
from gateway.usage.event import Orphan
from pricing.readers.text import storable

LEASE: Final = "host:lease:"
"""With a host's id: how often it has written, until its lease ends."""
CALLS: Final = "host:calls:"
"""With a host's id: the OPEN and the last NOTE of its calls in flight, by event id."""
NAMES: Final = "host:names"
"""The hosts that may have calls here, by id."""
PIPELINE_MAX: Final = 500
"""Records sent, or asked for, in one go."""


class FoundCall(NamedTuple):
    """A call as it lies in Redis."""

    id: str
    raw: bytes
    orphan: Orphan | None
    distrust: str | None
    """Why it is not believed, in a word (ledger/signing.py)."""


class OpenCalls:
    """All of it over one Redis. Every method raises DependencyDown("redis")."""

    def __init__(self, redis: "Redis", *, signer: EntrySigner | None = None) -> None:
        self._redis: Final = redis
        self._signer: Final = signer

    async def show(self, host: KnownHost, put: Mapping[str, Orphan], gone: Sequence[str], *, lease_s: float) -> int:
        """Writes the calls that are open and removes those that are not; renews the lease. Returns its number: one
        more than the last time, or Redis has lost something of what this host wrote."""
        key, lease = CALLS + host.id, LEASE + host.id
        records = [(event_id, self._record(host.id, event_id, orphan)) for event_id, orphan in put.items()]
        pipe = self._redis.pipeline(transaction=False)
        for start in range(0, len(records), PIPELINE_MAX):
            pipe.hset(key, mapping=cast("Any", dict(records[start : start + PIPELINE_MAX])))
        for start in range(0, len(gone), PIPELINE_MAX):
            pipe.hdel(key, *gone[start : start + PIPELINE_MAX])
        pipe.hset(NAMES, host.id, host.name)
        pipe.set(lease, 0, ex=ceil(lease_s), nx=True)  # so that it is never without an end
        pipe.expire(lease, ceil(lease_s))
        # Last: what is replicated is a beginning of what was written, so a number that is there vouches for the rest.
        pipe.incr(lease)
        return int((await self._all(pipe))[-1])

    async def ids(self, host_id: str) -> set[str]:
        """The calls of a host that are here."""
        return {_text(name) for name in await self._asked(self._redis.hkeys(CALLS + host_id))}

    async def forget(self, host_id: str, event_ids: Sequence[str]) -> None:
        """For calls whose usage is elsewhere by now."""
        for start in range(0, len(event_ids), PIPELINE_MAX):
            await self._asked(self._redis.hdel(CALLS + host_id, *event_ids[start : start + PIPELINE_MAX]))

    async def leave(self, host_id: str) -> None:
        """For a host that is stopped with nothing left."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.hdel(NAMES, host_id)
        pipe.delete(LEASE + host_id, CALLS + host_id)
        await self._all(pipe)

    async def forget_name(self, host_id: str) -> None:
        """For a lost host without calls here. One that is back names itself again with its next write."""
        await self._asked(self._redis.hdel(NAMES, host_id))

    async def names(self) -> dict[str, str]:
        """The hosts that may have calls here: names by id. A name under anything but a uuid is none of ours."""
        found = await self._asked(self._redis.hgetall(NAMES))
        named = {_text(host_id): storable(_text(name)) for host_id, name in found.items()}
        return {host_id: name for host_id, name in named.items() if is_uuid(host_id)}

    async def with_lease(self, host_ids: Iterable[str]) -> set[str]:
        """Those of these hosts whose lease has not ended."""
        asked = list(host_ids)
        if not asked:
            return set()
        found = await self._asked(self._redis.mget([LEASE + host_id for host_id in asked]))
        return {host_id for host_id, number in zip(asked, found, strict=True) if number is not None}

    async def count(self, host_id: str) -> int:
        """How many calls of a host are here."""
        return int(await self._asked(self._redis.hlen(CALLS + host_id)))

    async def read(self, host_id: str, calls_max: int) -> list[FoundCall]:
        """The calls of a host that are here, `calls_max` of them or a few more."""
        found: dict[str, FoundCall] = {}
        cursor = 0
        while True:
            cursor, part = await self._asked(self._redis.hscan(CALLS + host_id, cursor, count=PIPELINE_MAX))
            found |= {_text(name): self._read(host_id, _text(name), raw) for name, raw in part.items()}
            if not cursor or len(found) >= calls_max:
                return list(found.values())

    def _record(self, host_id: str, event_id: str, orphan: Orphan) -> bytes:
        told = orphan.opened + b"\n" + (orphan.note or b"")
        return told + b"\n" + (b"" if self._signer is None else self._signer.sign(_signed_as(host_id, event_id), told))

    def _read(self, host_id: str, event_id: str, raw: bytes) -> FoundCall:
        # No line feed in JSON as `encode` writes it; the MAC may have some, and is the rest.
        opened, _, rest = raw.partition(b"\n")
        note, _, mac = rest.partition(b"\n")
        distrust = None
        if self._signer is not None:
            distrust = self._signer.judge(_signed_as(host_id, event_id), opened + b"\n" + note, mac or None)
        return FoundCall(event_id, raw, Orphan(opened, note or None) if distrust is None else None, distrust)

    async def _all(self, pipe: "Pipeline") -> list[Any]:
        # The client's own way of raising puts the whole command, the record with it, into the message.
        replies = cast("list[Any]", await self._asked(pipe.execute(raise_on_error=False)))
        for reply in replies:
            if isinstance(reply, RedisError):
                kind = DependencyRefused if isinstance(reply, NoPermissionError) else DependencyDown
                raise kind("redis", f"{type(reply).__name__}: {reply}") from reply
        return replies

    async def _asked(self, reply: Any) -> Any:
        try:
            return await cast("Awaitable[Any]", reply)
        except (AuthenticationError, NoPermissionError) as error:
            raise DependencyRefused("redis", f"{type(error).__name__}: {error}") from error
        except (RedisError, OSError, RuntimeError) as error:  # RuntimeError: uvloop, of a connection half-closed
            raise DependencyDown("redis", f"{type(error).__name__}: {error}") from error


def _signed_as(host_id: str, event_id: str) -> str:
    """Not the event's id alone: a record must not pass for an entry of the stream, nor the other way about. Nor for a
    call of another host: under one that has no lease it would be settled while it runs."""
    return f"open:{host_id}:{event_id}"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
