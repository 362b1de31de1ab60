"""Lives of rooms as the stand-in of Daily.co has them, by its own rules, told by webhooks, by REST, or by both."""

import json
from typing import Any, Literal

from gateway.meetings.backfill import event_of
from gateway.meetings.daily_events import occurred_at, read_envelope
from gateway.sandbox.daily.rooms import LiveRooms
from gateway.sandbox.daily.service import Faults, World
from gateway.stores.webhook_inbox import WebhookEvent
from tests.meetings.daily_lives import at

Source = Literal["webhooks", "rest", "both"]


class Daily:
    """The stand-in's world without its HTTP; its clock stands at the minute `now`."""

    def __init__(self, *, now: float = 1000, **faults: Any) -> None:
        self.told: list[dict[str, Any]] = []
        self.world = World(self.told.append, clock=lambda: at(now))
        self.world.faults = Faults(**faults)
        self.rooms = LiveRooms(self.world)

    def enter(self, room: str, name: str, minute: float, *, user: str | None = None, owner: bool = False) -> str:
        return self.rooms.enter(room, name, user, owner=owner, at=at(minute))

    def leave(self, session_id: str, minute: float) -> None:
        self.rooms.leave(session_id, at=at(minute))

    def meetings(self) -> list[str]:
        """Ids, in order of their beginning."""
        return self.rooms.pass_time(at=at(1000))

    def by_webhooks(self) -> list[WebhookEvent]:
        events = []
        for said in self.told:
            body = json.dumps(said).encode()
            envelope = read_envelope(body)
            events.append(WebhookEvent(envelope.id, envelope.type, occurred_at(envelope), body))
        return events

    def by_rest(self) -> list[WebhookEvent]:
        sessions = self.world.sessions.values()
        return [event_of(self.world.as_rest(session, people=True) | {"whole": True}) for session in sessions]

    def events(self, source: Source) -> list[WebhookEvent]:
        webhooks = [] if source == "rest" else self.by_webhooks()
        return webhooks + ([] if source == "webhooks" else self.by_rest())


def a_long_stay(user: str, **faults: Any) -> Daily:
    """Ann, the host, is alone twice for ten minutes: three sessions. Dan looks in for 20 seconds, then Eve comes."""
    daily = Daily(**faults)
    ann = daily.enter("room", "Ann", 0, user=user, owner=True)
    bob = daily.enter("room", "Bob", 0.25)
    daily.leave(bob, 20)
    cem = daily.enter("room", "Cem", 40)
    daily.leave(cem, 50)
    daily.leave(ann, 75)
    dan = daily.enter("room", "Dan", 75.5)
    daily.leave(dan, 75.75)
    eve = daily.enter("room", "Eve", 76.25)
    daily.leave(eve, 90)
    return daily


ROWS_OF_A_LONG_STAY = [
    # meeting, name, minutes from and to
    (0, "Ann", 0.25, 30), (0, "Bob", 0.25, 20),
    (1, "Ann", 30, 60), (1, "Cem", 40, 50),
    (2, "Ann", 60, 75),
    (3, "Eve", 76.75, 90),
]  # fmt: skip
