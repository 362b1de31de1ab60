"""Rooms in PostgreSQL: one at a time for the API, in numbers for rotation and import. Opens no envelope."""

from gateway.edges.rooms.bulk import BulkRooms, Made, Stored
from gateway.edges.rooms.rooms import Meeting, Rooms

__all__ = ["BulkRooms", "Made", "Meeting", "Rooms", "Stored"]
