"""Opens where traces go from settings; the caller's stack closes it."""

from contextlib import AsyncExitStack
from importlib import import_module

from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError
from gateway.proxy.tracing import Traces


def open_traces(stack: AsyncExitStack, settings: Settings) -> Traces | None:
    """Where spans go, closed by the stack; None where nobody wants them. Raises ConfigError without the extra."""
    endpoint = settings.traces.otlp_endpoint
    if endpoint is None:
        return None
    try:
        # Here and by name: an extra that is not installed, and costs half a second where it is.
        traces_module = import_module("gateway.proxy.traces")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"traces.otlp_endpoint is set, but {error.name} is not installed: pip install 'pailflow-gateway[otel]'"
        ) from None
    traces = traces_module.open_traces(endpoint, settings.traces.sample_ratio)
    stack.callback(traces.close)
    opened: Traces = traces
    return opened
