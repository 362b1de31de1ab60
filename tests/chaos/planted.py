"""Bugs planted on purpose, each a change to a class of the product inside a process of tests/chaos/entry.py.

They show that the checks of tests/chaos/checks.py can fail: each must be caught by them. Each also takes away the layer
that would heal it (the shipping again of what PostgreSQL lacks, Stripe's memory of identifiers): otherwise two layers
together hide what one of them does wrong. Never imported by the product.
"""

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from gateway.billing.stripe import Billing
from gateway.billing.windows import MeterEvent, StripeAnswer
from gateway.kit.loops import Loops
from gateway.ledger import sql
from gateway.ledger.flush import Flush
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer, StreamEntry
from gateway.proxy.record import Recorder
from gateway.usage.event import OpenRecord, UsageEvent, encode

CONTENT: Final = "something that a client has sent"


@contextmanager
def ack_first() -> Iterator[None]:
    """The writer acknowledges what it has read before PostgreSQL has it. Without the shipping again."""
    read, ack = Flush._take, Buffer.ack

    async def take(self: Flush, block_ms: int) -> list[StreamEntry]:
        entries = await read(self, block_ms)
        await ack(self._buffer, [entry.stream_id for entry in entries])
        return entries

    async def later(_: Buffer, __: Sequence[bytes]) -> None:
        """It was done before."""

    with _never_shipped_again(), patch.object(Flush, "_take", take), patch.object(Buffer, "ack", later):
        yield


@contextmanager
def no_journal() -> Iterator[None]:
    """Proxies that write to the stream only, once a call is over."""

    async def opened(_: Recorder, __: OpenRecord) -> None:
        """Nothing is known of a call before it is over."""

    async def settle(self: Recorder, event: UsageEvent) -> None:
        await self._buffer.append([(event.id, encode(event))])

    with patch.object(Recorder, "open", opened), patch.object(Recorder, "settle", settle):
        yield


@contextmanager
def counters_from_batch() -> Iterator[None]:
    """Sums grow by what was read, not by what was really inserted."""
    changed = sql.INSERT_BATCH.replace(
        "count(*) filter (where adjusts is null) as calls, max(completed_at) as last_at\n  from added",
        "count(*) filter (where adjusts is null) as calls, max(completed_at) as last_at\n  from batch",
    )
    assert changed != sql.INSERT_BATCH
    with patch.object(sql, "INSERT_BATCH", changed):
        yield


@contextmanager
def blind_resend() -> Iterator[None]:
    """Every try at Stripe is an event of its own: an identifier and an idempotency key that nobody has seen."""
    deliver = Billing.deliver

    async def blind(self: Billing, event: MeterEvent) -> StripeAnswer:
        return await deliver(self, event._replace(identifier=secrets.token_hex(16)))

    with patch.object(Billing, "deliver", blind):
        yield


@contextmanager
def _never_shipped_again() -> Iterator[None]:
    """The keeper takes an event for delivered as soon as the stream has it."""

    async def confirmed(_: Ledger, event_ids: Sequence[str]) -> set[str]:
        return set(event_ids)

    with patch.object(Ledger, "find_confirmed", confirmed):
        yield


@contextmanager
def failing_loop(name: str, died: Path) -> Iterator[None]:
    """One pass of this background loop raises what no loop expects: the first in whichever process makes `died`."""
    run = Loops._run

    async def failing(self: Loops, loop: Any) -> None:
        async def step() -> Any:
            if not died.exists():
                died.write_text(str(os.getpid()))
                raise KeyError(CONTENT)
            return await loop.step()

        await run(self, loop._replace(step=step) if loop.name == name else loop)

    with patch.object(Loops, "_run", failing):
        yield


BUGS: Final[dict[str, Callable[[], Any]]] = {
    "ack before insert": ack_first,
    "no journal": no_journal,
    "counters from the batch": counters_from_batch,
    "blind Stripe resend": blind_resend,
}
