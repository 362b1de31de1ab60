"""Audit: what must always hold of the ledger, each rule judged by its own small function over what the edges read."""

from gateway.flows.audit.budgets import Counted, compare
from gateway.flows.audit.run import Policy, audit
from gateway.flows.audit.span import audited_span
from gateway.flows.audit.verdict import Report, State, Verdict

__all__ = ["Counted", "Policy", "Report", "State", "Verdict", "audit", "audited_span", "compare"]
