"""The journal on this host's disk, writing side; gateway/edges/segments.py reads it."""

from gateway.edges.journal.journal import Journal, SlotTaken
from gateway.edges.journal.reserve import Reserve

__all__ = ["Journal", "Reserve", "SlotTaken"]
