"""OpenTelemetry: one span per metered call, sent by OTLP over HTTP to a collector. The extra `otel`.

Imported only where traces are wanted (proxy/opening.py): the libraries cost every process half a second at its start.
Attributes are those of OpenTelemetry's semantic conventions for generative AI, and our own under `gateway.`; never a
prompt, an answer or a key. A collector that is away costs spans, never a call.
"""

from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.openai.families.catalogue import ENDPOINT_OF
from gateway.usage.event import UsageEvent
from pricing import nano_text


class OtlpSpan:
    """One call's span, begun."""

    def __init__(self, span: Span) -> None:
        self._span: Final = span

    def end(self, event: UsageEvent, status: int) -> None:
        """`status`: what the client was answered; 0 when it was never answered."""
        span = self._span
        if span.is_recording():
            known = {
                "gen_ai.response.model": event.model,
                "gen_ai.response.id": event.response_id,
                "gen_ai.usage.input_tokens": event.prompt_tokens,
                "gen_ai.usage.output_tokens": event.completion_tokens,
                "http.response.status_code": status or None,
                "gateway.event_id": event.id,
                "gateway.user_id": event.user_id,
                "gateway.meeting_id": event.meeting_id,
                "gateway.evidence": event.evidence,
                "gateway.cost_usd": None if event.cost_nano is None else nano_text(event.cost_nano),
            }
            span.set_attributes({name: value for name, value in known.items() if value is not None})
            if status >= 500:
                span.set_status(Status(StatusCode.ERROR))
        span.end()


class OpenTelemetry:
    """Spans of one process."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider: Final = provider
        self._tracer: Final[Tracer] = provider.get_tracer("pailflow-gateway")
        self._context: Final = TraceContextTextMapPropagator()

    def begin(self, endpoint: str, model: str, headers: dict[str, str], started_s: float) -> OtlpSpan:
        """A span below the one that `headers` name, if any; they name this one afterwards. `started_s`: Unix time."""
        operation = ENDPOINT_OF[endpoint].operation or endpoint
        span = self._tracer.start_span(
            f"{operation} {model}",
            context=self._context.extract(headers),
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": model,
                "gateway.endpoint": endpoint,
            },
            start_time=int(started_s * 1e9),
        )
        self._context.inject(headers, context=set_span_in_context(span))
        return OtlpSpan(span)

    def close(self) -> None:
        """Sends what is left, within the exporter's own time limit."""
        self._provider.shutdown()


def open_traces(endpoint: str, sample_ratio: float) -> OpenTelemetry:
    """Spans to the OTLP endpoint, in batches from a thread of their own. `sample_ratio`: 0 to 1, where no parent
    decides."""
    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(sample_ratio),
        resource=Resource.create({"service.name": "pailflow-gateway"}),
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return OpenTelemetry(provider)
