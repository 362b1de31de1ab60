"""Counts the requests of one process. On the hot path: one look-up per call, then plain additions.

Labels come from our own lists only (kit/metrics.py).
"""

from collections.abc import Iterator
from typing import Final

from gateway.kit.metrics import ANSWER_S, LATENCY_S, Histogram, Sample
from gateway.usage.event import UsageEvent

_CLASSES: Final = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")
ACCOUNT_EMPTY: Final = "insufficient_quota"
"""OpenAI's code when the operator's account has no credit left. A 429 as a rate limit is, but waiting does not help."""
_TOLD_APART: Final = frozenset({401, 429, 500, 502, 503, 504})
"""HTTP errors of OpenAI's that an operator acts upon differently."""


class _Calls:
    """Sums over the calls of one endpoint, class of status and evidence."""

    __slots__ = ("billed_nano", "completion", "cost_nano", "count", "prompt")

    def __init__(self) -> None:
        self.count = self.cost_nano = self.billed_nano = self.prompt = self.completion = 0


class CallMetrics:
    """One per process."""

    def __init__(self) -> None:
        self._calls: Final[dict[tuple[str, int, str], _Calls]] = {}
        self._added: Final[dict[str, Histogram]] = {}
        self._first_byte: Final[dict[str, Histogram]] = {}
        self._free: Final[dict[tuple[str, int], int]] = {}
        self._refused: Final[dict[str, int]] = {}
        self._errors: Final[dict[str, int]] = {}
        self._coded: Final[dict[str, int]] = {}
        self._left = 0
        self.running = 0
        """Requests being served."""

    def count_metered(
        self, event: UsageEvent, status: int, added_s: float, first_byte_s: float | None, *, client_left: bool
    ) -> None:
        """A call with a row. `added_s`, `first_byte_s`: seconds."""
        key = (event.endpoint, status // 100, event.evidence)
        calls = self._calls.get(key)
        if calls is None:
            calls = self._calls[key] = _Calls()
        calls.count += 1
        calls.cost_nano += event.cost_nano or 0
        calls.billed_nano += event.billed_nano or 0
        calls.prompt += event.prompt_tokens or 0
        calls.completion += event.completion_tokens or 0
        histogram = self._added.get(event.endpoint)
        if histogram is None:
            histogram = self._added[event.endpoint] = Histogram(LATENCY_S)
        histogram.observe(added_s)
        if first_byte_s is not None:
            histogram = self._first_byte.get(event.endpoint)
            if histogram is None:
                histogram = self._first_byte[event.endpoint] = Histogram(ANSWER_S)
            histogram.observe(first_byte_s)
        if client_left:
            self._left += 1

    def count_upstream_failure(self, status: int, broken: str | None, code: str | None) -> None:
        """OpenAI answered `status` with the error `code`, or the call broke for the reason `broken`."""
        if broken is None and status == 429 and code == ACCOUNT_EMPTY:
            kind = ACCOUNT_EMPTY
        else:
            kind = broken or (f"http_{status}" if status in _TOLD_APART else "http_5xx")
        self._errors[kind] = self._errors.get(kind, 0) + 1

    def count_coded(self, coding: str) -> None:
        """OpenAI's answer came with a Content-Encoding that nobody asked for."""
        self._coded[coding] = self._coded.get(coding, 0) + 1

    def count_free(self, endpoint: str, status: int) -> None:
        """A call that costs nothing."""
        key = (endpoint, status // 100)
        self._free[key] = self._free.get(key, 0) + 1

    def count_refused(self, code: str) -> None:
        """A request that the gateway answered itself."""
        self._refused[code] = self._refused.get(code, 0) + 1

    def samples(self) -> Iterator[Sample]:
        """All of it, now."""
        for (endpoint, status, evidence), calls in self._calls.items():
            labels = (endpoint, _class(status), evidence)
            yield Sample("gateway_calls_total", labels, calls.count)
            yield Sample("gateway_cost_nano_usd_total", labels, calls.cost_nano)
            yield Sample("gateway_billed_nano_usd_total", labels, calls.billed_nano)
            yield Sample("gateway_prompt_tokens_total", labels, calls.prompt)
            yield Sample("gateway_completion_tokens_total", labels, calls.completion)
        for endpoint, histogram in self._added.items():
            yield histogram.sample("gateway_added_seconds", (endpoint,))
        for endpoint, histogram in self._first_byte.items():
            yield histogram.sample("gateway_first_byte_seconds", (endpoint,))
        for (endpoint, status), count in self._free.items():
            yield Sample("gateway_free_calls_total", (endpoint, _class(status)), count)
        for code, count in self._refused.items():
            yield Sample("gateway_refused_total", (code,), count)
        for kind, count in self._errors.items():
            yield Sample("gateway_upstream_errors_total", (kind,), count)
        for coding, count in self._coded.items():
            yield Sample("gateway_coded_answers_total", (coding,), count)
        yield Sample("gateway_clients_left_total", (), self._left)
        yield Sample("gateway_requests_running", (), self.running)


def _class(hundreds: int) -> str:
    return _CLASSES[hundreds] if 0 < hundreds < len(_CLASSES) else _CLASSES[0]
