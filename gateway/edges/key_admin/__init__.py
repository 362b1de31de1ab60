"""Unkey's administration: the keys that it holds, described and changed. Never on the hot path; no business rules."""

from gateway.edges.key_admin.admin import RIGHTS_TO_SET, KeyAdmin, KeyChange, MadeKey, Pause
from gateway.edges.key_admin.described import DescribedKey, KeyPage, Limit, unix_ms

__all__ = [
    "RIGHTS_TO_SET",
    "DescribedKey",
    "KeyAdmin",
    "KeyChange",
    "KeyPage",
    "Limit",
    "MadeKey",
    "Pause",
    "unix_ms",
]
