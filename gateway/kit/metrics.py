"""What the gateway counts about itself: the fixed list of its metrics, and how those of many processes add up. Pure.

Every label takes its values from a list in our own code (endpoints of the catalogue, evidence, our error codes):
nothing that a client sends may become a label, or the number of series would grow with user input.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

import msgspec

LATENCY_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds in seconds of what the gateway adds to a call, and of a commit to the journal."""
ANSWER_S: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0)
"""Upper bounds in seconds of the time to a first byte, which OpenAI makes."""


class MetricFamily(NamedTuple):
    """One metric. A gauge of several processes is their sum, or their largest where `merge` says so."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """Of a histogram: upper bounds, seconds; one more bucket takes the rest."""
    merge: Literal["sum", "max"] = "sum"


_CALL: Final = ("endpoint", "status", "evidence")
FAMILIES: Final[dict[str, MetricFamily]] = {
    "gateway_calls_total": MetricFamily("counter", "Metered calls, each with one ledger row.", _CALL),
    "gateway_cost_nano_usd_total": MetricFamily("counter", "What OpenAI charges for them, nano-USD (1e-9 USD).", _CALL),
    "gateway_billed_nano_usd_total": MetricFamily("counter", "What customers are charged for them, nano-USD.", _CALL),
    "gateway_prompt_tokens_total": MetricFamily("counter", "Input tokens of metered calls.", _CALL),
    "gateway_completion_tokens_total": MetricFamily("counter", "Output tokens of metered calls.", _CALL),
    "gateway_added_seconds": MetricFamily(
        "histogram",
        "Time a metered call spent in the gateway before it was sent and after OpenAI's last byte.",
        ("endpoint",),
        LATENCY_S,
    ),
    "gateway_first_byte_seconds": MetricFamily(
        "histogram", "Time from the request to OpenAI's first byte.", ("endpoint",), ANSWER_S
    ),
    "gateway_free_calls_total": MetricFamily(
        "counter", "Calls that cost nothing and have no row.", ("endpoint", "status")
    ),
    "gateway_refused_total": MetricFamily(
        "counter", "Requests that the gateway answered itself, by its code.", ("code",)
    ),
    "gateway_budget_warnings_total": MetricFamily(
        "counter", "Soft budgets seen to reach a share of their limit, per cent; per proxy and period.", ("share",)
    ),
    "gateway_upstream_errors_total": MetricFamily(
        "counter", "Metered calls that OpenAI failed or broke off.", ("kind",)
    ),
    "gateway_coded_answers_total": MetricFamily(
        "counter", "Metered answers with a Content-Encoding that nobody asked for.", ("coding",)
    ),
    "gateway_clients_left_total": MetricFamily("counter", "Metered calls whose client had left before the end."),
    "gateway_unkey_circuit_open": MetricFamily(
        "gauge", "Proxies that do not ask Unkey now, because it has failed too often."
    ),
    "gateway_unkey_canary_unknown": MetricFamily("gauge", "Proxies to which Unkey does not know keys.canary."),
    "gateway_plans_age_seconds": MetricFamily(
        "gauge", "Time since a proxy last knew that it has all plans.", merge="max"
    ),
    "gateway_connections": MetricFamily("gauge", "Open connections of clients."),
    "gateway_connections_max": MetricFamily("gauge", "Connections that there may be at the same time."),
    "gateway_connections_refused_total": MetricFamily(
        "counter", "Connections that were one too many, by what was full.", ("reason",)
    ),
    "gateway_connections_late_total": MetricFamily(
        "counter", "Connections ended because the client was too slow, by what was late.", ("what",)
    ),
    "gateway_body_bytes_held": MetricFamily(
        "gauge", "Bytes of large request bodies whose requests are not answered yet."
    ),
    "gateway_requests_running": MetricFamily("gauge", "Requests being served."),
    "gateway_drains_running": MetricFamily("gauge", "Answers being read on after their client has left."),
    "gateway_settles_not_on_disk": MetricFamily(
        "gauge", "Settled calls that the journal has refused and memory holds."
    ),
    "gateway_journal_commit_seconds": MetricFamily("histogram", "Time of one write to the journal.", (), LATENCY_S),
    "gateway_journal_bytes": MetricFamily("gauge", "Bytes of all segments in the journal folder."),
    "gateway_journal_corrupt_records": MetricFamily(
        "gauge", "Journal records skipped because they were torn or corrupt."
    ),
    "gateway_journal_corrupt_living_records": MetricFamily(
        "gauge", "Journal records that did not read although their writer was still running: calls are lost."
    ),
    "gateway_journal_open_calls": MetricFamily("gauge", "Calls in the journal without a settle."),
    "gateway_journal_oldest_open_seconds": MetricFamily(
        "gauge", "Age of the oldest call without a settle.", merge="max"
    ),
    "gateway_journal_unconfirmed_events": MetricFamily("gauge", "Settled calls not seen in PostgreSQL yet."),
    "gateway_journal_oldest_unconfirmed_seconds": MetricFamily(
        "gauge", "Age of the oldest settled call not seen in PostgreSQL yet.", merge="max"
    ),
    "gateway_swept_total": MetricFamily("counter", "Calls of dead processes that the keeper settled."),
    "gateway_hosts": MetricFamily(
        "gauge", "Hosts that take calls: alive, silent for a minute, lost in the last day.", ("state",), merge="max"
    ),
    "gateway_stream_entries": MetricFamily("gauge", "Events in the Redis stream.", merge="max"),
    "gateway_stream_unacknowledged": MetricFamily(
        "gauge", "Of these, handed to a writer and not finished.", merge="max"
    ),
    "gateway_redis_used_bytes": MetricFamily("gauge", "Memory that a Redis uses.", ("redis",), merge="max"),
    "gateway_redis_limit_bytes": MetricFamily(
        "gauge", "Memory that a Redis may use, its maxmemory; 0: no limit of its own.", ("redis",), merge="max"
    ),
    "gateway_redis_memory_bytes": MetricFamily(
        "gauge",
        "What the memory of a Redis is used for, as the last walk through it found.",
        ("redis", "purpose"),
        merge="max",
    ),
    "gateway_flushed_total": MetricFamily("counter", "Events committed to PostgreSQL, or put into quarantine."),
    "gateway_quarantined_total": MetricFamily("counter", "Events put into usage_quarantine."),
    "gateway_quarantine_rows": MetricFamily("gauge", "Rows of usage_quarantine that nobody has resolved.", merge="max"),
    "gateway_meter_events": MetricFamily("gauge", "Stripe meter events in the outbox.", ("state",), merge="max"),
    "gateway_meter_events_of_other_accounts": MetricFamily(
        "gauge", "Of the pending ones, those that are for another Stripe account than the key's.", merge="max"
    ),
    "gateway_billing_stopped": MetricFamily(
        "gauge", "1 while Stripe takes no event of anybody: credentials, no meter, a wrong one.", merge="max"
    ),
    "gateway_webhook_events": MetricFamily(
        "gauge",
        "Events of the inbox: new, waiting for their meeting, failed; lapsed without one in the last day.",
        ("state",),
        merge="max",
    ),
    "gateway_stripe_events": MetricFamily(
        "gauge", "Webhooks of Stripe that are not applied: new, failed.", ("state",), merge="max"
    ),
    "gateway_unreported_users": MetricFamily("gauge", "Users with amounts that no customer pays.", merge="max"),
    "gateway_build_info": MetricFamily(
        "gauge", "1, with what runs here in its labels.", ("version", "commit", "python"), merge="max"
    ),
    "gateway_waiting": MetricFamily("gauge", "1 while the process waits for a dependency.", ("process",), merge="max"),
    "gateway_process_up": MetricFamily("gauge", "1 while the process runs.", ("process",)),
    "gateway_process_starts_total": MetricFamily("counter", "Times the process was started.", ("process",)),
    "gateway_process_cpu_seconds_total": MetricFamily("counter", "CPU time of the process.", ("process",)),
    "gateway_process_resident_bytes": MetricFamily("gauge", "Memory of the process.", ("process",)),
    "gateway_process_files": MetricFamily("gauge", "Open file descriptors of the process.", ("process",)),
    "gateway_process_files_max": MetricFamily("gauge", "File descriptors that it may have.", ("process",)),
}
"""Every metric by its name in the exposition. docs/operations.md says what to watch; a test compares them."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One series at one moment."""

    name: str
    labels: tuple[str, ...] = ()
    value: int | float = 0
    """Of a histogram: the sum of all observations, seconds."""
    buckets: tuple[int, ...] = ()
    """Of a histogram: observations per bucket, not cumulated."""


class Status(msgspec.Struct, frozen=True):
    """What a process says of itself once a second."""

    failure: str | None = None
    """Why it cannot do its work right now; None while it can."""
    waiting: str | None = None
    """The dependency that it waits for; calls go on meanwhile."""
    samples: tuple[Sample, ...] = ()


class Histogram:
    """Counts observations per bucket. One writer; a reader at any time sees counts that were true a moment ago."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds: Final = bounds
        self._buckets: Final = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """One observation, seconds."""
        self._buckets[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def sample(self, name: str, labels: tuple[str, ...] = ()) -> Sample:
        """Its state now."""
        return Sample(name, labels, self._sum, tuple(self._buckets))


def add_up(groups: Iterable[Iterable[Sample]]) -> list[Sample]:
    """The series of several processes as one set, ordered by name and labels."""
    found: dict[tuple[str, tuple[str, ...]], Sample] = {}
    for group in groups:
        for sample in group:
            key = (sample.name, sample.labels)
            other = found.get(key)
            found[key] = sample if other is None else _merge(other, sample)
    return [found[key] for key in sorted(found)]


def _merge(one: Sample, other: Sample) -> Sample:
    if FAMILIES[one.name].merge == "max":
        return max(one, other, key=lambda sample: sample.value)
    buckets = tuple(a + b for a, b in zip(one.buckets, other.buckets, strict=True))
    return Sample(one.name, one.labels, one.value + other.value, buckets)


def counters_only(samples: Iterable[Sample]) -> list[Sample]:
    """What still counts of a process that has ended: its gauges went with it."""
    return [sample for sample in samples if FAMILIES[sample.name].kind != "gauge"]
