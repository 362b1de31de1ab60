"""Stripe: meter events out, and the little administration that they need."""

from gateway.edges.billing.billing import Billing

__all__ = ["Billing"]
