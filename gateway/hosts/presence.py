"""A host as it shows itself to the others: its calls in flight in Redis, its lease there and in PostgreSQL.

Run by the keeper, in two loops that wait for one store each: a host is known through whichever answers.
"""

from collections.abc import Callable
from typing import Final

from gateway.hosts.identity import KnownHost
from gateway.hosts.open_calls import OpenCalls
from gateway.hosts.store import Hosts
from gateway.ledger.ship import BATCH_MAX, Ship
from gateway.ledger.store import Ledger


class Presence:
    """One per keeper."""

    def __init__(
        self,
        host: KnownHost,
        ship: Ship,
        calls: OpenCalls,
        hosts: Hosts,
        ledger: Ledger,
        *,
        lease_s: float,
        renew_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._host: Final = host
        self._ship: Final = ship
        self._calls: Final = calls
        self._hosts: Final = hosts
        self._ledger: Final = ledger
        self._lease_s: Final = lease_s
        self._renew_s: Final = renew_s
        self._monotonic: Final = monotonic
        self._renew_at_s = 0.0
        self._number: int | None = None
        """Of our last write, by Redis; None while it is not known what Redis has: after a start, an outage, a loss."""
        self._is_clean = False
        """Whether Redis has none of our calls that an earlier life has shown, and that have ended since."""

    async def show_calls(self) -> None:
        """Writes to Redis which calls are open, where that has changed, and renews the lease there."""
        begun, number = self._monotonic(), self._number
        is_due = begun >= self._renew_at_s
        put, gone = self._ship.take_changes(notes=is_due)
        if number is not None and not put and not gone and not is_due:
            return
        self._number = None  # whatever ends this write before its end
        if number is None:
            put, self._is_clean = self._ship.opened(), False
        written = await self._calls.show(self._host, put, gone, lease_s=self._lease_s)
        if number is None or written == number + 1:
            self._number = written
            if is_due:
                self._renew_at_s = begun + self._renew_s

    async def renew(self) -> None:
        """Renews the lease in PostgreSQL, and removes from Redis what PostgreSQL has."""
        await self._hosts.renew(
            self._host,
            lease_s=self._lease_s,
            open_calls=self._ship.open_calls,
            unconfirmed_calls=self._ship.unconfirmed,
        )
        if not self._is_clean:
            self._is_clean = not await self._forget_ended()

    async def leave(self) -> None:
        """This host is stopped, and its journal has nothing that PostgreSQL has not. Its leases end, now or by
        themselves: where Redis knows of a call that the journal has lost, a worker settles it then."""
        await self.show_calls()
        if not await self._forget_ended():
            await self._hosts.end(self._host.id)
            await self._calls.leave(self._host.id)

    async def _forget_ended(self) -> set[str]:
        """The calls in Redis that are not open here, and that PostgreSQL does not have either: not read yet, or lost
        from this disk. The others are removed."""
        ended = list(await self._calls.ids(self._host.id) - self._ship.opened().keys())
        known: set[str] = set()
        for start in range(0, len(ended), BATCH_MAX):
            known |= await self._ledger.find_confirmed(ended[start : start + BATCH_MAX])
        await self._calls.forget(self._host.id, sorted(known))
        return set(ended) - known
