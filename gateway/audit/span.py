"""The range of an audit: parsed from what people type, widened to whole hours and billing windows."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import lcm
from typing import Final

from gateway.audit.reads.snapshot import AuditRange
from gateway.kit.errors import OptionError
from gateway.kit.instants import parse_bound

HOUR_S: Final = 3600
LCM_MAX_S: Final = 7 * 86_400
"""No range is widened to a multiple of more than this; its windows are then not compared one by one."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def audited_span(since: str | None, until: str | None, now: datetime, *, everything: bool = False) -> AuditRange:
    """The range that these options name; without them the last full UTC day, the one before it, and today so far.

    Raises OptionError naming the option that is wrong.
    """
    if everything:
        if since is not None or until is not None:
            raise OptionError("--all: it is everything; leave out --from and --to")
        return AuditRange(None, None)
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begins = midnight - timedelta(days=2) if since is None else parse_bound(since, "--from", now)
    ends = None if until is None else parse_bound(until, "--to", now)
    if ends is not None and begins >= ends:
        raise OptionError(
            f"--from ({begins:%Y-%m-%dT%H:%M:%SZ}) must be before --to ({until}), which is not part of it"
        )
    return AuditRange(begins, ends)


def align_range(span: AuditRange, lengths_s: Sequence[int]) -> AuditRange:
    """`span`, widened to whole UTC hours and whole windows of each length in seconds: sums are compared whole."""
    step = lcm(HOUR_S, *lengths_s)
    if step > LCM_MAX_S:
        step = HOUR_S
    since = None if span.since is None else _EPOCH + _whole(span.since, step)
    until = None if span.until is None else _EPOCH - _whole(span.until, step, up=True)
    return AuditRange(since, until)


def window_length(span: AuditRange, lengths_s: Sequence[int]) -> int | None:
    """The one length of all windows in `span`, seconds, when it has only whole ones of that length; else None."""
    if len(lengths_s) > 1:
        return None
    length_s = lengths_s[0] if lengths_s else HOUR_S
    whole = all(at is None or not (at - _EPOCH) % timedelta(seconds=length_s) for at in span)
    return length_s if whole else None


def _whole(at: datetime, step_s: int, *, up: bool = False) -> timedelta:
    """Time since the epoch in whole steps, rounded down; with `up` its negative, rounded up."""
    step = timedelta(seconds=step_s)
    return ((_EPOCH - at) // step if up else (at - _EPOCH) // step) * step
