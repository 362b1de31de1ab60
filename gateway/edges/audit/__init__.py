"""What the audit reads: the ledger and what stands around it in one frozen view, and the journal folder. Reads only."""

from gateway.edges.audit.delivery import Counted, DeliveredHour, delivered_hours
from gateway.edges.audit.journal import Journaled, Record, read_folder, unknown_ids
from gateway.edges.audit.lifecycle import Lifecycle, read_lifecycle
from gateway.edges.audit.rows import (
    EstimateDay,
    Estimates,
    Evidence,
    PricedRow,
    Uniqueness,
    priced_rows,
    read_estimates,
    read_evidence,
    read_uniqueness,
)
from gateway.edges.audit.snapshot import Offenders, Snapshot, Span, snapshot
from gateway.edges.audit.sums import (
    Amounts,
    Counters,
    Rollups,
    read_amounts,
    read_counters,
    read_rollups,
    window_lengths,
)

__all__ = [
    "Amounts",
    "Counted",
    "Counters",
    "DeliveredHour",
    "EstimateDay",
    "Estimates",
    "Evidence",
    "Journaled",
    "Lifecycle",
    "Offenders",
    "PricedRow",
    "Record",
    "Rollups",
    "Snapshot",
    "Span",
    "Uniqueness",
    "delivered_hours",
    "priced_rows",
    "read_amounts",
    "read_counters",
    "read_estimates",
    "read_evidence",
    "read_folder",
    "read_lifecycle",
    "read_rollups",
    "read_uniqueness",
    "snapshot",
    "unknown_ids",
    "window_lengths",
]
