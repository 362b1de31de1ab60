"""Limits in Redis: rates, slots and budgets of all proxies together, taken whole or not at all, one script per call.

Calls that come together share one round trip. The counters are never the truth: money is counted by the ledger, and a
budget's counter is made from it again and again (`state`, `recount`). Redis or Valkey, one
node: a script's keys may lie anywhere on it.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import AuthenticationError, NoPermissionError, NoScriptError, RedisError

from gateway.kit.errors import DependencyFull, DependencyRefused
from gateway.limits.claims import Claim, RateClaim, Slots, Taken
from gateway.limits.scripts import BEGIN, RECOUNT, RENEW, RESERVE, SETTLE
from gateway.stores.redis import check_server, describe_outage

REDIS: Final = "redis"
LIMITS_REDIS: Final = "limits redis"
"""The Redis that is for limits alone."""
PREFIX: Final = "limit:"
WINDOWS: Final = f"{PREFIX}windows"
"""The hash of every budget period that may have counters: its descriptor by its key."""
PROBE: Final = f"{PREFIX}probe"
TURN: Final = f"{PREFIX}turn"
"""There while a worker has recently begun to recount."""
QUIET_TURN: Final = f"{PREFIX}quiet-turn"
"""The same of recounts that look at periods in which nothing is under way."""
LEASE_S: Final = 60
"""Seconds that a slot stays taken when its proxy is gone; a living one renews it."""
KEPT_S: Final = 2 * 86_400
"""Seconds for which a period's counters outlive their last change and its end."""
KEPT: Final = "kept:"
"""Before the event id of a call that has ended, and whose cost is not known yet: what stays of its hold."""
PIECE_MAX: Final = 500
"""Fields of a hash that Redis reads, or event ids that a recount moves, in one go: a millisecond or two."""
FIGURES: Final = 5
# Redis's own name of a script; nothing is secret here.
NAMES: Final = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in (RESERVE, SETTLE, RENEW, BEGIN, RECOUNT)
}
_Script = tuple[str, list[Any]]


class NotCounted(Exception):
    """A budget's period has no counter yet. `keys` names those that want the ledger's sum."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__(*keys)
        self.keys: Final = frozenset(keys)


class WindowState(NamedTuple):
    """What one period's counter holds; amounts are nano-USD."""

    version: str
    base: int | None
    settled: dict[str, int]
    """By event id, not yet in `base`."""
    held: dict[str, int]
    """By event id, with KEPT before it where the call has ended."""

    @property
    def under_way(self) -> list[str]:
        """Events whose row the ledger may have by now."""
        return [*self.settled, *(event for event in self.held if not event.startswith(KEPT))]

    @property
    def kept(self) -> list[str]:
        """Events that a later row may correct."""
        return [event.removeprefix(KEPT) for event in self.held if event.startswith(KEPT)]


class Limits:
    """All limits over one Redis. Every method raises DependencyDown, of `name`."""

    def __init__(self, redis: "Redis", *, hold_s: float, name: str = REDIS) -> None:
        """`hold_s`: seconds after which a hold that nobody settled is given up; longer than any call. `name`: which
        Redis it is, where there are two."""
        self._redis: Final = redis
        self._name: Final = name
        self._hold_s: Final = int(hold_s)
        self._waiting: list[tuple[_Script, asyncio.Future[Any]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def check_policy(self) -> None:
        """Raises ConfigError when this server, which is for limits alone, may evict or is a node of a cluster."""
        await self._asked_redis(check_server(self._redis, "LIMITS_REDIS_URL", "what budgets have spent"))

    async def try_write(self) -> None:
        """Writes something that is gone at once. Raises DependencyDown when the server takes no writes."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(PROBE, "1", ex=LEASE_S)
        pipe.delete(PROBE)
        await self._asked_redis(pipe.execute())

    async def reserve(self, event_id: str, claims: Sequence[Claim]) -> list[Taken]:
        """Everything or nothing: nothing is taken when one of the answers says `refused`.

        Raises NotCounted when the ledger has to be asked first.
        """
        arguments: list[Any] = [event_id]
        for claim in claims:
            arguments += self._arguments_of(claim)
        answer = await self._run(RESERVE, arguments)
        figures = [[int(figure) for figure in answer[i : i + FIGURES]] for i in range(0, len(answer), FIGURES)]
        if unknown := [claim.key for claim, (*_, known) in zip(claims, figures, strict=True) if not known]:
            raise NotCounted(unknown)
        return [
            Taken(claim, bool(refused), used, more, wait)
            for claim, (refused, used, more, wait, _) in zip(claims, figures, strict=True)
        ]

    async def settle(
        self,
        event_id: str,
        claims: Sequence[Claim],
        *,
        tokens: int,
        cost: int,
        billed: int,
        keeps_hold: bool = False,
    ) -> None:
        """What the call has really used takes the place of what it claimed; tokens, and nano-USD. Harmless twice,
        but for the tokens of a rate.

        `keeps_hold`: nobody knows yet what it has cost: of hard budgets the rest of its hold stays, for KEPT_HOLD_S
        at most or until the ledger has a row that corrects this one (`recount`).
        """
        arguments: list[Any] = [event_id]
        for claim in claims:
            if isinstance(claim, RateClaim):
                if claim.kind == "tokens" and claim.cost != tokens:
                    given_back = claim.cost - tokens
                    arguments += ["rate", claim.key, given_back, claim.limit, _micros(claim.period_s)]
            elif isinstance(claim, Slots):
                arguments += ["slots", claim.key, 0, 0, 0]
            else:
                amount = billed if claim.budget.counts == "billed_usd" else cost
                kept = max(0, claim.nano - amount) if keeps_hold and claim.budget.hard else 0
                arguments += ["hold", claim.key, amount, kept, KEPT_S]
        if len(arguments) > 1:
            await self._run(SETTLE, arguments)

    async def renew(self, event_id: str, claims: Sequence[Claim]) -> None:
        """Keeps the slots of a call that runs."""
        leases = [part for claim in claims if isinstance(claim, Slots) for part in (claim.key, LEASE_S)]
        if leases:
            await self._run(RENEW, [event_id, *leases])

    async def begin(self, key: str, descriptor: bytes, nano: int) -> None:
        """Sets the ledger's sum for a period without a counter. A counter that exists by now is kept."""
        await self._run(BEGIN, [WINDOWS, key, descriptor, nano, KEPT_S])

    async def windows(self) -> dict[str, bytes]:
        """Every period that may have counters: its descriptor by its key."""
        _, (found,) = await self._read_hashes(self._redis.pipeline(transaction=False), [WINDOWS])
        return {key.decode(): descriptor for key, descriptor in found.items()}

    async def take_turn(self, turn: str, seconds: float) -> bool:
        """Whether nobody has it (TURN, QUIET_TURN); then nobody else gets it for so long. A full server keeps no turn,
        and everybody has it then: periods that are over must go, for they take room."""
        try:
            return bool(await self._asked_redis(self._redis.set(turn, 1, nx=True, px=max(1, int(seconds * 1000)))))
        except DependencyFull:
            return True

    async def forget(self, key: str) -> None:
        """A period that is over, with its counters."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.hdel(WINDOWS, key)
        pipe.unlink(key, f"{key}:u", f"{key}:h", f"{key}:e")
        await self._asked_redis(pipe.execute())

    async def state(self, key: str) -> WindowState:
        """A period's counter as it stands; what is claimed or settled while it is read may be missing from it."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hmget(key, "ver", "base")
        # Holds first: a call that is settled meanwhile is in both, never in neither.
        ((version, base),), (held, settled) = await self._read_hashes(pipe, [f"{key}:h", f"{key}:u"])
        return WindowState(
            version=(version or b"0").decode(),
            base=None if base is None else int(base),
            settled={event.decode(): int(nano) for event, nano in settled.items()},
            held={event.decode(): int(nano) for event, nano in held.items()},
        )

    async def recount(self, key: str, state: WindowState, nano: int, contained: Sequence[str]) -> bool:
        """The ledger's sum, and which of the events in `state` it contains. False when another was faster.

        No script takes more than PIECE_MAX ids: after an outage there are as many as calls came during it, and Redis
        answers nobody else while a script runs. Between two pieces the counter says the same as before.
        """
        contained = list(dict.fromkeys(contained))  # a script must not count one twice
        pieces = [contained[i : i + PIECE_MAX] for i in range(0, len(contained), PIECE_MAX)] or [[]]
        first: int | str = ""
        if state.base is None and len(pieces) > 1:
            first = nano - sum(state.settled.get(event, state.held.get(event, 0)) for event in contained)
        for number, piece in enumerate(pieces):
            version, total = int(state.version) + number, nano if number == len(pieces) - 1 else ""
            if not await self._run(RECOUNT, [key, version, total, first, KEPT_S, *piece]):
                return False
            first = ""
        return True

    def _arguments_of(self, claim: Claim) -> list[Any]:
        if isinstance(claim, RateClaim):
            return ["rate", claim.key, claim.limit, claim.cost, _micros(claim.period_s), 0, 1]
        if isinstance(claim, Slots):
            return ["slots", claim.key, claim.limit, 0, LEASE_S, 0, 1]
        limit, hard = claim.budget.limit_nano, int(claim.budget.hard)
        return ["hold", claim.key, limit, claim.nano, self._hold_s, KEPT_S, hard]

    async def _run(self, script: str, arguments: list[Any]) -> Any:
        """One script of one call; those that come while others are on their way go together."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(((script, arguments), answer))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        return await answer

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._send_batch(batch)
        finally:
            self._sending = None

    async def _send_batch(self, batch: list[tuple[_Script, asyncio.Future[Any]]]) -> None:
        try:
            answers = await self._evaluate([script for script, _ in batch])
        except Exception as error:  # noqa: BLE001  # every error is passed to the waiting calls
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue  # its call was cancelled
            if isinstance(answer, RedisError):
                future.set_exception(describe_outage(self._name, answer, str(answer)))
            elif isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def _evaluate(self, scripts: Sequence[_Script], *, tries: int = 2) -> list[Any]:
        """Answers in order. A server that does not know a script (it is new, or was restarted) is told it first."""
        pipe = self._redis.pipeline(transaction=False)
        for script, arguments in scripts:
            pipe.execute_command("EVALSHA", NAMES[script], 0, *arguments)
        answers = cast("list[Any]", await self._asked_redis(pipe.execute(raise_on_error=False)))
        lost = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if lost and tries > 1:
            for script in {scripts[i][0] for i in lost}:
                await self._asked_redis(self._redis.script_load(script))
            # Nothing of these has run, so they may be sent again.
            again = await self._evaluate([scripts[i] for i in lost], tries=tries - 1)
            for i, answer in zip(lost, again, strict=True):
                answers[i] = answer
        return answers

    async def _read_hashes(self, pipe: "Pipeline", names: Sequence[str]) -> tuple[list[Any], list[dict[bytes, bytes]]]:
        """What a pipeline answers, and whole hashes after it, a piece at a time: one may have a million fields."""
        for name in names:
            pipe.hscan(name, 0, count=PIECE_MAX)
        answers = await self._asked_redis(pipe.execute())
        before, begun = answers[: -len(names)], answers[-len(names) :]
        hashes: list[dict[bytes, bytes]] = []
        for name, (cursor, found) in zip(names, begun, strict=True):
            while cursor:
                cursor, more = await self._asked_redis(self._redis.hscan(name, cursor, count=PIECE_MAX))
                found.update(more)
            hashes.append(found)
        return before, hashes

    async def _asked_redis(self, reply: Any) -> Any:
        try:
            return await reply
        except (AuthenticationError, NoPermissionError) as error:
            raise DependencyRefused(self._name, f"{type(error).__name__}: {error}") from error
        except (RedisError, OSError, RuntimeError) as error:  # RuntimeError: uvloop, of a connection half-closed
            raise describe_outage(self._name, error, f"{type(error).__name__}: {error}") from error


def _micros(seconds: float) -> int:
    return int(seconds * 1_000_000)
