"""Reports for finance: usage by any dimension, and what meetings have cost. Each sums what the ledger says."""

from gateway.flows.reports.meetings import MeetingCost, MeetingReport, meeting_report
from gateway.flows.reports.usage import (
    DIMENSIONS,
    UsageReport,
    amounts,
    parse_dimensions,
    parse_range,
    usage_report,
)

__all__ = [
    "DIMENSIONS",
    "MeetingCost",
    "MeetingReport",
    "UsageReport",
    "amounts",
    "meeting_report",
    "parse_dimensions",
    "parse_range",
    "usage_report",
]
