"""The Redis stream between the journal and the batch writer, and the owners of fresh responses. Transport, not truth.

Must never trim (MAXLEN, XTRIM) or read with NOACK: either loses unread usage. An entry
leaves the stream only through `ack`, after the ledger has committed. Works on Valkey and on Redis >= 7.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import (
    AuthenticationError,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from gateway.kit.errors import DependencyDown, DependencyRefused
from gateway.ledger.signing import EntrySigner
from gateway.stores.redis import check_server, describe_outage

GROUP: Final = "ledger"
PIPELINE_MAX: Final = 1000
"""Commands sent in one go."""
OWNER_PREFIX: Final = "owner:"
PROBE: Final = f"{OWNER_PREFIX}probe"
"""A name that a login with the rights that the gateway needs may write."""
PROBE_TTL_S: Final = 60
OWNER_TTL_S: Final = 3600
"""The writer takes an owner out once Postgres has it; this bounds what an outage of Postgres can pile up here."""
KEPT_OWNER_TTL_S: Final = 30 * 86_400
"""OpenAI keeps a response for 30 days. For owners that only Redis knows: of a call in quarantine, say."""
BEHIND: Final = f"{OWNER_PREFIX}:behind"
"""There while Postgres may lack owners that have expired here. No object's id has a colon."""
BEHIND_TTL_S: Final = 300
"""Longer than a keeper's restart takes."""
# KEYS: owners of objects. ARGV: the owner of each that Postgres has. What names somebody else stays.
_FORGET: Final = """
for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[i] then redis.call('DEL', key) end
end
"""


class StreamEntry(NamedTuple):
    """One entry as read: its place in the stream, the event's id, the event's bytes."""

    stream_id: bytes
    event_id: str
    raw: bytes
    distrust: str | None = None
    """Why it is not believed to be ours, in a word. Then it names no call, and `raw` is all its fields."""


class Depth(NamedTuple):
    """Entries in the stream, and those of them handed to a writer that has not acknowledged them yet."""

    entries: int
    unacknowledged: int


class RedisState(NamedTuple):
    """A server as `doctor` sees it."""

    policy: str
    used_bytes: int
    limit_bytes: int
    """0: none of its own."""
    append_only: bool
    write_fails: bool
    """Whether its last write to disk failed."""
    unix_s: float
    """Its clock."""
    entries: int
    """Waiting in our stream."""
    other_groups: tuple[str, ...]
    """Groups of the stream that are not ours: each would keep entries of its own."""
    oldest_unix_s: float | None
    """When the oldest entry that still waits was added, by its clock."""


class Buffer:
    """One stream with its one group of writers. All methods raise DependencyDown("redis")."""

    def __init__(
        self, redis: "Redis", *, stream: str, signer: EntrySigner | None = None, owner_ttl_s: int = OWNER_TTL_S
    ) -> None:
        """Without a `signer` entries are not signed, and every entry is believed."""
        self._redis: Final = redis
        self._stream: Final = stream
        self._signer: Final = signer
        self._owner_ttl_s: Final = owner_ttl_s
        self._forget: Final = redis.register_script(_FORGET)

    async def check_policy(self) -> None:
        """Raises ConfigError when this server may throw keys away to save memory, because the stream would go
        silently, or is a node of a cluster.
        """
        await _await_reply(check_server(self._redis, "REDIS_URL", "recorded usage"))

    async def try_write(self) -> str | None:
        """Writes something that is gone at once. Why it cannot, where what is in the stream has to be taken out first
        or its operator has to act: it is full, its disk fails, its replicas are away. A server that only reads raises,
        as one that is away does.
        """
        try:
            await _await_reply(self._redis.set(PROBE, "1", ex=PROBE_TTL_S))
            await _await_reply(self._redis.delete(PROBE))
        except DependencyDown as error:
            cause = error.__cause__
            lasting = isinstance(cause, ReadOnlyError | MasterDownError | NoPermissionError)
            if isinstance(cause, ResponseError) and not lasting:
                return error.detail
            raise
        return None

    async def state(self) -> RedisState:
        """What this server promises, and what lies in our stream. Reads only."""
        info = {**await _await_reply(self._redis.info("memory")), **await _await_reply(self._redis.info("persistence"))}
        seconds, micros = await _await_reply(self._redis.time())
        return RedisState(
            policy=str(info.get("maxmemory_policy", "unknown")),
            used_bytes=int(info.get("used_memory", 0)),
            limit_bytes=int(info.get("maxmemory", 0)),
            append_only=bool(int(info.get("aof_enabled", 0))),
            write_fails="err" in (str(info.get("aof_last_write_status")), str(info.get("rdb_last_bgsave_status"))),
            unix_s=int(seconds) + int(micros) / 1e6,
            entries=int(await _await_reply(self._redis.xlen(self._stream))),
            other_groups=await self._other_groups(),
            oldest_unix_s=await self._oldest_s(),
        )

    async def _other_groups(self) -> tuple[str, ...]:
        try:
            groups = await _await_reply(self._redis.xinfo_groups(self._stream))
        except DependencyDown as error:
            if "no such key" in error.detail:
                return ()
            raise
        names = [bytes(group["name"]).decode("utf-8", "replace") for group in groups]
        return tuple(name for name in names if name != GROUP)

    async def _oldest_s(self) -> float | None:
        found = await _await_reply(self._redis.xrange(self._stream, count=1))
        return int(bytes(found[0][0]).split(b"-")[0]) / 1000 if found else None

    async def append(self, entries: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """Adds (event id, bytes) in order; returns their stream ids, which the server makes.

        When it raises, some may have been added; adding them again is harmless.
        """
        stream_ids: list[bytes] = []
        signer = self._signer
        for start in range(0, len(entries), PIPELINE_MAX):
            pipe = self._redis.pipeline(transaction=False)
            for event_id, raw in entries[start : start + PIPELINE_MAX]:
                if signer is None:
                    pipe.execute_command("XADD", self._stream, "*", "e", raw, "id", event_id)
                else:
                    mac = signer.sign(event_id, raw)
                    pipe.execute_command("XADD", self._stream, "*", "e", raw, "id", event_id, "m", mac)
            stream_ids += await _all(pipe)
        return stream_ids

    async def waiting(self, stream_ids: Sequence[bytes]) -> set[bytes]:
        """The entries among these that are in the stream and will reach a writer. One that was delivered but is held by
        no writer will not (somebody ran `XGROUP DELCONSUMER`), so it is removed from the stream: the caller has the
        original."""
        present = await self._with_fields(stream_ids, lambda one: ("XRANGE", self._stream, one, one))
        last = await self._last_delivered() if present else (0, 0)
        handed_out = [stream_id for stream_id in present if _place(stream_id) <= last]
        held = set(await self._with_fields(handed_out, lambda one: ("XPENDING", self._stream, GROUP, one, one, 1)))
        # An entry that was acknowledged between these questions is not there to be deleted: it has arrived.
        nobodys = [stream_id for stream_id in handed_out if stream_id not in held]
        dropped = await self._with_fields(nobodys, lambda one: ("XDEL", self._stream, one))
        return set(present) - set(dropped)

    async def _with_fields(self, stream_ids: Sequence[bytes], command: Callable[[bytes], Sequence[Any]]) -> list[bytes]:
        """Those about which the command has something to say."""
        pipe = self._redis.pipeline(transaction=False)
        for stream_id in stream_ids:
            pipe.execute_command(*command(stream_id), parse_detail=True)  # of XPENDING: it has two kinds of answers
        answers = await _all(pipe) if stream_ids else []
        return [stream_id for stream_id, answer in zip(stream_ids, answers, strict=True) if answer]

    async def _last_delivered(self) -> tuple[int, int]:
        groups = await _await_reply(self._redis.xinfo_groups(self._stream))
        ours = [group["last-delivered-id"] for group in groups if bytes(group["name"]).decode() == GROUP]
        return _place(ours[0]) if ours else (0, 0)

    async def ensure_group(self) -> None:
        """Makes stream and group if need be. From 0, never `$`: what is in the stream already is unread usage."""
        try:
            await _await_reply(self._redis.xgroup_create(self._stream, GROUP, id="0", mkstream=True))
        except DependencyDown as error:
            if "BUSYGROUP" not in error.detail:
                raise

    async def read(self, consumer: str, count: int, block_ms: int) -> list[StreamEntry]:
        """Up to `count` entries nobody has read yet; waits `block_ms` at most for the first (0: does not wait)."""
        found = await self._run_on_group(
            lambda: self._redis.xreadgroup(GROUP, consumer, {self._stream: ">"}, count=count, block=block_ms or None)
        )
        return self._entries(found[0][1]) if found else []

    async def claim(self, consumer: str, min_idle_ms: int, count: int) -> list[StreamEntry]:
        """Takes over up to `count` entries that another writer read `min_idle_ms` ago and never acknowledged."""
        cursor = b"0-0"
        while True:
            cursor, found, *_ = await self._run_on_group(
                partial(self._redis.xautoclaim, self._stream, GROUP, consumer, min_idle_ms, cursor, count)
            )
            if found or cursor == b"0-0":
                return self._entries(found)

    async def ack(self, stream_ids: Sequence[bytes]) -> None:
        """Acknowledges and deletes, both or neither: an entry that is only acknowledged would stay for ever."""
        for start in range(0, len(stream_ids), PIPELINE_MAX):
            part = stream_ids[start : start + PIPELINE_MAX]
            pipe = self._redis.pipeline(transaction=True)
            pipe.execute_command("XACK", self._stream, GROUP, *part)
            pipe.execute_command("XDEL", self._stream, *part)
            await _all(pipe)

    async def forget_consumer(self, consumer: str) -> None:
        """Removes a writer that holds nothing; one that still holds entries stays until they are taken over."""
        held = await self._run_on_group(lambda: self._redis.xpending_range(self._stream, GROUP, "-", "+", 1, consumer))
        if not held:
            await self._run_on_group(lambda: self._redis.xgroup_delconsumer(self._stream, GROUP, consumer))

    async def depth(self) -> Depth:
        """How much is waiting."""
        length = await _await_reply(self._redis.xlen(self._stream))
        summary = await self._run_on_group(lambda: self._redis.xpending(self._stream, GROUP))
        return Depth(int(length), int(summary["pending"]))

    async def event_ids(self) -> AsyncIterator[str]:
        """The ids of all events in the stream, the oldest first; empty where an entry names none. Reads only."""
        async for _, named in self._all_entries():
            yield named.get(b"id", b"").decode("utf-8", "replace")

    async def places(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """The bytes of all events in the stream, each with its entry's stream id. Reads only."""
        async for stream_id, named in self._all_entries():
            yield named.get(b"e", b""), stream_id

    async def _all_entries(self) -> AsyncIterator[tuple[bytes, dict[bytes, bytes]]]:
        after = b"-"
        while found := await _await_reply(self._redis.xrange(self._stream, min=after, count=PIPELINE_MAX)):
            for stream_id, named in found:
                yield bytes(stream_id), named
            after = b"(" + bytes(found[-1][0])

    async def set_owners(self, object_ids: Sequence[str], user_id: str) -> None:
        """Remembers whose objects these are, before anybody hears of them."""
        pipe = self._redis.pipeline(transaction=False)
        for object_id in object_ids:
            pipe.set(OWNER_PREFIX + object_id, user_id, ex=self._owner_ttl_s)
        await _all(pipe)

    async def get_owners(self, object_ids: Sequence[str]) -> dict[str, str]:
        """Of these objects, those whose owner Redis remembers, with the owner's user id."""
        owners = await _await_reply(self._redis.mget([OWNER_PREFIX + object_id for object_id in object_ids]))
        found = zip(object_ids, owners, strict=True)
        return {object_id: owner.decode() for object_id, owner in found if owner is not None}

    async def forget_owners(self, owners: Mapping[str, str]) -> None:
        """For objects (user ids by object id) whose owner Postgres has committed."""
        for start in range(0, len(owners), PIPELINE_MAX):
            part = list(owners.items())[start : start + PIPELINE_MAX]
            keys, users = [OWNER_PREFIX + object_id for object_id, _ in part], [user_id for _, user_id in part]
            await _await_reply(self._forget(keys=keys, args=users))

    async def keep_owners(self, object_ids: Sequence[str]) -> None:
        """For objects whose owner Postgres does not get with its batch: they stay as long as OpenAI has them."""
        pipe = self._redis.pipeline(transaction=False)
        for object_id in object_ids:
            pipe.expire(OWNER_PREFIX + object_id, KEPT_OWNER_TTL_S)
        await _all(pipe)

    async def tell_behind(self) -> None:
        """Says for BEHIND_TTL_S that Postgres is far behind: an owner that nobody knows may still be on its way."""
        await _await_reply(self._redis.set(BEHIND, "1", ex=BEHIND_TTL_S))

    async def is_behind(self) -> bool:
        """Whether some keeper has said so."""
        return bool(await _await_reply(self._redis.exists(BEHIND)))

    def _entries(self, found: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> list[StreamEntry]:
        """Entries as the server lists them. One without our fields keeps what it has, and will not decode later on."""
        entries, signer = [], self._signer
        for stream_id, named in found:
            raw, event_id = named.get(b"e"), named.get(b"id", b"").decode("utf-8", "replace")
            distrust = None if signer is None else signer.judge(event_id, raw or b"", named.get(b"m"))
            if distrust is not None:
                entries.append(StreamEntry(stream_id, "", _all_fields(named), distrust))
            else:
                entries.append(StreamEntry(stream_id, event_id, _all_fields(named) if raw is None else raw))
        return entries

    async def _run_on_group(self, command: Callable[[], Any]) -> Any:
        """One command on the group, which is made again when a flush or failover has taken it away."""
        try:
            return await _await_reply(command())
        except DependencyDown as error:
            if "NOGROUP" not in error.detail:
                raise
        await self.ensure_group()
        return await _await_reply(command())


def _all_fields(named: dict[bytes, bytes]) -> bytes:
    return b"\n".join(name + b"=" + value for name, value in named.items())


def _place(stream_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = bytes(stream_id).partition(b"-")
    return int(milliseconds), int(number)


async def _await_reply(reply: Any) -> Any:
    """Waits for a reply; what goes wrong on the way or on the server is DependencyDown("redis")."""
    try:
        return await cast("Awaitable[Any]", reply)
    except (AuthenticationError, NoPermissionError) as error:
        raise DependencyRefused("redis", f"{type(error).__name__}: {error}") from error
    # RuntimeError: what uvloop says of a write to a connection that the server has half-closed.
    except (RedisError, OSError, RuntimeError) as error:
        kind = "" if isinstance(error, ResponseError) else f"{type(error).__name__}: "
        raise describe_outage("redis", error, f"{kind}{error}") from error


async def _all(pipe: "Pipeline") -> list[Any]:
    # The client's own way of raising puts the whole command, the event with it, into the message.
    replies = await _await_reply(pipe.execute(raise_on_error=False))
    for reply in replies:
        if isinstance(reply, RedisError):
            raise describe_outage("redis", reply, str(reply)) from reply
    return list(replies)
