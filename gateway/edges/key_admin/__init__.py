"""Unkey's administration: the keys that it holds, described and changed. Never on the hot path; no business rules."""

from gateway.edges.key_admin.admin import KeyAdmin, KeyChange, MadeKey
from gateway.edges.key_admin.described import DescribedKey, KeyPage, Limit, unix_ms

__all__ = ["DescribedKey", "KeyAdmin", "KeyChange", "KeyPage", "Limit", "MadeKey", "unix_ms"]
