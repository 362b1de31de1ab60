"""The ledger and the stream under the settings; the caller's stack closes what is opened."""

from contextlib import AsyncExitStack
from math import ceil

from gateway.config.key_ring import parse_ring
from gateway.config.settings import Settings
from gateway.ledger.signing import EntrySigner
from gateway.ledger.store import Ledger
from gateway.ledger.stream import OWNER_TTL_S, Buffer
from gateway.stores.postgres import Connections
from gateway.stores.redis import open_redis


def build_ledger(settings: Settings, pool: Connections) -> Ledger:
    """A ledger over this pool, or within a transaction."""
    return Ledger(pool, meter=settings.billing.meter_event_name, window_s=settings.billing.window_s)


def open_buffer(stack: AsyncExitStack, settings: Settings, url: str) -> Buffer:
    """The Redis side, closed by the stack."""
    redis = open_redis(url)
    stack.push_async_callback(redis.aclose)
    # An owner is set when an answer begins, and must be there until its call has a row.
    owner_ttl_s = OWNER_TTL_S if settings.upstream.total_s <= OWNER_TTL_S else ceil(settings.journal.open_max_s)
    return Buffer(redis, stream=settings.flush.stream, signer=build_signer(settings), owner_ttl_s=owner_ttl_s)


def build_signer(settings: Settings) -> EntrySigner | None:
    """What signs entries of the stream; None without GATEWAY_SECRETS."""
    if settings.gateway_secrets is None:
        return None
    ring = parse_ring(settings.gateway_secrets.get_secret_value())
    return EntrySigner(ring, admit_unsigned=settings.flush.admit_unsigned)
