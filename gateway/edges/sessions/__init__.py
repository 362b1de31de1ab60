"""Meetings and people in PostgreSQL, and the inbox of the events that tell about them. Holds no rule about them."""

from gateway.edges.sessions.book import MeetingRow, PersonRow, Turn
from gateway.edges.sessions.event_turn import Wait
from gateway.edges.sessions.inbox import Counts, Event, Inbox, NotApplied
from gateway.edges.sessions.listing import Listed, Listing
from gateway.edges.sessions.walks import Reached, Walks

__all__ = [
    "Counts",
    "Event",
    "Inbox",
    "Listed",
    "Listing",
    "MeetingRow",
    "NotApplied",
    "PersonRow",
    "Reached",
    "Turn",
    "Wait",
    "Walks",
]
