"""Settings of a host that takes calls."""

from pydantic import BaseModel, Field


class JournalSettings(BaseModel, extra="forbid", frozen=True):
    """The journal on this host's disk: where a call becomes durable."""

    segment_bytes_max: int = Field(64 * 1024 * 1024, ge=4096)
    """Bytes after which a new segment is begun."""
    reserve_bytes: int = Field(16 * 1024 * 1024, ge=0)
    """Bytes of disk that each process keeps free for calls in flight, which can then settle on a full disk."""
    keep_s: float = Field(86_400, ge=0)
    """Seconds a segment is kept after every call in it is confirmed in Postgres."""
    confirm_after_s: float = Field(2, gt=0)
    """Seconds after which an event not yet seen in Postgres is sent again."""
    stop_s: float = Field(5, ge=0)
    """Seconds that a stop waits at most for Postgres to have the last calls; an outage ends the waiting at once."""
    open_max_s: float = Field(4000, gt=0)
    """Seconds after which an open call of a running process is swept too; must exceed upstream.total_s."""


class HostSettings(BaseModel, extra="forbid", frozen=True):
    """What becomes of the calls of a host that is lost with its disk."""

    grace_s: float = Field(600, ge=0)
    """Seconds beyond journal.open_max_s for which a host may be unseen, in Redis and in Postgres, before it is lost."""
    renew_s: float = Field(5, gt=0, le=20)
    """Seconds after which a host says in both that it lives."""
    sweep_s: float = Field(30, gt=0)
    """Seconds between two looks of a worker for hosts that are lost."""
