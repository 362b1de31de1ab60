"""Opens the connections to OpenAI from settings; the caller's stack closes them."""

from contextlib import AsyncExitStack

from gateway.config.settings import Settings
from gateway.http.outbound import proxy_for
from gateway.kit.failpoints import Failpoint, pass_by
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
