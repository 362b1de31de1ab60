"""Rooms: made, read, changed and expired; sealed anew under another key; taken over from an SQLite file."""
