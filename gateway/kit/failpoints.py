"""Failpoints: the named places of the money path at which a crash must be harmless.

Each process (gateway/processes/) hands a failpoint down to its parts; in production it is `pass_by`, and no setting and
no environment variable makes it another one: what kills at a failpoint is handed in by the tests' own entry
(tests/chaos/entry.py).
"""

from collections.abc import Callable
from typing import Final

Failpoint = Callable[[str], None]
"""Told the name of each place as it is passed, right after what the name says."""

SITES: Final[dict[str, str]] = {
    "proxy.opened": "OPEN is on disk, nothing is sent",
    "proxy.sent": "the request is with the kernel, OpenAI has not answered",
    "proxy.headers": "OpenAI has begun to answer",
    "proxy.first_chunk": "the response id was read, nothing of it is noted or passed on (again once a second)",
    "proxy.noted": "NOTE is in the journal, the owner is known",
    "proxy.ended": "OpenAI's answer is over, SETTLE is not written",
    "proxy.settled": "SETTLE is on disk, the client lacks the last bytes",
    "proxy.released": "the client has everything",
    "ship.sent": "events are in the stream, the shipper has not noted it",
    "ship.confirmed": "PostgreSQL has them, the shipper still holds them",
    "sweep.before": "an orphan is found, nothing is done",
    "sweep.settled": "its SETTLE is on disk, the sweeper has not noted it",
    "flush.read": "entries are read, nothing is written",
    "flush.committed": "rows are committed, nothing is acknowledged",
    "flush.acked": "entries are acknowledged, the writer still holds them",
    "bill.frozen": "windows are frozen into meter events, none is sent",
    "bill.sent": "Stripe has an event, PostgreSQL does not know",
    "bill.marked": "PostgreSQL knows",
}
"""Every place, and what has happened when it is passed."""


def pass_by(_name: str) -> None:
    """The failpoint of production: nothing happens."""
