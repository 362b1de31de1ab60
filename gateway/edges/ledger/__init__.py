"""The ledger in PostgreSQL: rows in, sums with them, and the few questions the gateway asks. No business rules."""

from gateway.edges.ledger.ledger import Identity, Ledger, Outcome
from gateway.edges.ledger.pool import Pool, open_pool, told_apart
from gateway.edges.ledger.rows import Entry, NotARow

__all__ = ["Entry", "Identity", "Ledger", "NotARow", "Outcome", "Pool", "open_pool", "told_apart"]
