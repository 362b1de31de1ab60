"""Opens the connections to OpenAI from settings; the caller's stack closes them."""

from contextlib import AsyncExitStack

from gateway.config.key_ring import parse_ring
from gateway.config.settings import Settings
from gateway.http.outbound import proxy_for
from gateway.kit.failpoints import Failpoint, pass_by
from gateway.openai.namespaces import Namespaces
from gateway.openai.upstream import Upstream


def open_upstream(
    stack: AsyncExitStack, settings: Settings, api_key: str, *, failpoint: Failpoint = pass_by
) -> Upstream:
    """Connections to OpenAI, closed by the stack."""
    bounds = settings.upstream
    upstream = Upstream(
        settings.openai_base_url,
        api_key,
        connect_s=bounds.connect_s,
        first_byte_s=bounds.read_s,
        proxy=proxy_for(settings, settings.openai_base_url),
        failpoint=failpoint,
    )
    stack.push_async_callback(upstream.close)
    return upstream


def build_namespaces(settings: Settings) -> Namespaces:
    """What each user has of its own at OpenAI. The newest of GATEWAY_SECRETS makes the names."""
    bounds, secrets = settings.upstream, settings.gateway_secrets
    ring = None if secrets is None else parse_ring(secrets.get_secret_value())
    wanted = {
        "prompt_cache_key": bounds.cache_key_per_user,
        "safety_identifier": bounds.safety_identifier_per_user,
    }
    return Namespaces(
        None if ring is None else ring.key(ring.newest),
        own_user=bounds.own_user,
        fields=frozenset(name for name, is_wanted in wanted.items() if is_wanted),
    )
