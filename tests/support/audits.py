"""A ledger as a real gateway would have left it, valued by the real settler, and the journal beside it, for audits."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import msgspec

from gateway.accounts.store import Accounts
from gateway.journal.frames import BOOT, OPEN, SETTLE, frame
from gateway.kit.ids import uuid7
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.usage.event import OpenRecord, UsageEvent, encode
from gateway.usage.settle import Settler, Tokens
from pricing.readers.body import Said
from tests.support.invoke import Done, gateway

MODELS: Final = ("gpt-4o-mini", "gpt-4.1", "gpt-5.1", "gpt-5-mini-2025-08-07")


class Maker:
    """Calls of one user with one key, each as its own process would have settled it."""

    def __init__(self, user_id: str, api_key_id: str, settler: Settler, *, seed: int = 4) -> None:
        self.user_id, self.api_key_id, self.settler = user_id, api_key_id, settler
        self.dice: Final = Random(seed)

    def opened(self, at: datetime, **changes: Any) -> OpenRecord:
        """A call begun at `at`."""
        fields: dict[str, Any] = {
            "id": uuid7(int(at.timestamp() * 1000), self.dice.getrandbits(80)),
            "user_id": self.user_id,
            "api_key_id": self.api_key_id,
            "endpoint": self.dice.choice(("chat", "responses")),
            "model": self.dice.choice(MODELS),
            "started_at": at,
            "text_bytes": 400,
        }
        return OpenRecord(**{**fields, **changes})

    def reported(self, at: datetime, *, settler: Settler | None = None, **changes: Any) -> UsageEvent:
        """A call that OpenAI told the usage of; `settler` values it in place of the usual one."""
        opened = self.opened(at)
        read, wrote = self.dice.randint(20, 4000), self.dice.randint(1, 900)
        names = (
            ("input_tokens", "output_tokens")
            if opened.endpoint == "responses"
            else ("prompt_tokens", "completion_tokens")
        )
        cached = {f"{names[0]}_details": {"cached_tokens": read // 3}}
        usage = msgspec.json.encode({names[0]: read, names[1]: wrote, "total_tokens": read + wrote, **cached})
        said = Said(f"resp_{opened.id}", opened.model, "default", usage)
        event = (settler or self.settler).settle_exact(
            opened, said, at + timedelta(seconds=2), drained=self.dice.random() < 0.2
        )
        return msgspec.structs.replace(event, **changes)

    def estimated(self, at: datetime, **metadata: Any) -> UsageEvent:
        event = self.settler.settle_estimated(
            self.opened(at), Said(), at + timedelta(seconds=2), "cut_off", Tokens(120, 30)
        )
        return msgspec.structs.replace(event, metadata={**event.metadata, **metadata})

    def void(self, at: datetime, **changes: Any) -> UsageEvent:
        event = self.settler.settle_void(self.opened(at), at + timedelta(seconds=1), "http_429")
        return msgspec.structs.replace(event, **changes)

    def unpriced(self, at: datetime) -> UsageEvent:
        said = Said("resp_unknown", "gpt-99", None, b'{"prompt_tokens":5,"completion_tokens":5,"total_tokens":10}')
        return self.settler.settle_exact(self.opened(at, endpoint="chat"), said, at + timedelta(seconds=1))

    def adjustment(self, of: UsageEvent, at: datetime, nano: int) -> UsageEvent:
        """A correction of `of` by so many nano-USD."""
        return UsageEvent(
            id=self.opened(at).id,
            user_id=of.user_id,
            api_key_id=of.api_key_id,
            endpoint=of.endpoint,
            model=of.model,
            evidence="adjustment",
            started_at=at,
            completed_at=at,
            cost_nano=nano,
            billed_nano=nano,
            adjusts=of.id,
        )

    def mixed(self, first: datetime, count: int, *, every: timedelta) -> list[UsageEvent]:
        """Reported and drained calls, with two estimates, a void and an unpriced one among them."""
        events = [self.reported(first + every * number) for number in range(count)]
        rest = (self.estimated, self.estimated, self.void, self.unpriced)
        return events + [make(first + every * number) for number, make in enumerate(rest)]


class Filled(NamedTuple):
    """What `fill` has made."""

    maker: Maker
    events: list[UsageEvent]


async def fill(ledger: Ledger, settler: Settler, first: datetime, *, count: int, every: timedelta) -> Filled:
    """A user with a Stripe customer and a key, `count` priced calls from `first` on, some others, and a correction."""
    user = await Accounts(ledger.pool).create_user("payer@example.com", stripe_customer_id="cus_payer")
    maker = Maker(user, await Accounts(ledger.pool).link_key(user, "key_payer"), settler)
    events = maker.mixed(first, count, every=every)
    await insert(ledger, events)
    estimate = next(event for event in events if event.evidence == "estimated")
    correction = maker.adjustment(estimate, first + every, -7)
    await insert(ledger, [correction])
    await ledger.add_units()
    return Filled(maker, [*events, correction])


async def insert(ledger: Ledger, events: Sequence[UsageEvent]) -> None:
    """The way of the batch writer."""
    await ledger.insert_batch([LedgerEntry.of(event) for event in events])


def lines(maker: Maker, events: Sequence[UsageEvent]) -> list[bytes]:
    """The journal's lines of calls that were begun and settled."""
    found = []
    for event in events:
        opened = maker.opened(event.started_at, id=event.id)
        found += [frame(OPEN, encode(opened)), frame(SETTLE, encode(event))]
    return found


def segment(folder: Path, number: int, written: Sequence[bytes], *, confirmed: bool = False, slot: str = "w0") -> Path:
    """A segment of these lines; `confirmed` sets the keeper's marker beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slot}.0000000000001.{number:06d}.jnl"
    path.write_bytes(b"".join([frame(BOOT, b'"boot"'), *written]))
    if confirmed:
        path.with_name(path.name + ".confirmed").touch()
    return path


async def audited(env: dict[str, str], *arguments: str) -> tuple[Done, dict[str, dict[str, Any]]]:
    """`gateway audit --json …` in this environment: how it ended, and each invariant by name."""
    done = await gateway(env, "audit", "--json", *arguments)
    assert done.error == "", done.error
    return done, {verdict["name"]: verdict for verdict in json.loads(done.out)["invariants"]}
