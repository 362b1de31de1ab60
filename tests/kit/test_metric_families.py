"""Metrics of several processes add up, never fall when one of them dies, and read as Prometheus reads them."""

from pathlib import Path
from platform import python_version

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.kit.metrics import FAMILIES, LATENCY_S, Histogram, Sample, Status, add_up, counters_only
from gateway.kit.version import COMMIT_VARIABLE, VERSION, build_labels
from gateway.processes.admin import Board, parse_metrics

CALLS = "gateway_calls_total"
LABELS = ("chat", "2xx", "reported")


class Clock:
    """A clock that stands until it is moved."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def calls(count: int) -> Status:
    """What a proxy says after that many calls."""
    return Status(None, None, (Sample(CALLS, LABELS, count), Sample("gateway_requests_running", (), 1)))


def value(board: Board, name: str, labels: tuple[str, ...] = ()) -> float:
    """The one series, 0 when it is not there."""
    return sum(sample.value for sample in board.samples() if (sample.name, sample.labels) == (name, labels))


@given(st.lists(st.lists(st.floats(0, 20), max_size=20), min_size=1, max_size=4))
def test_histograms_of_processes_add_up_to_one(groups: list[list[float]]) -> None:
    alone, parts = Histogram(LATENCY_S), []
    for group in groups:
        part = Histogram(LATENCY_S)
        for seconds in group:
            part.observe(seconds)
            alone.observe(seconds)
        parts.append([part.sample("gateway_added_seconds", ("chat",))])
    (together,) = add_up(parts)
    whole = alone.sample("gateway_added_seconds", ("chat",))
    assert together.buckets == whole.buckets
    assert abs(together.value - whole.value) < 1e-9 * (1 + whole.value)
    assert sum(together.buckets) == sum(map(len, groups))


def test_a_bound_is_inside_its_bucket() -> None:
    histogram = Histogram((0.5, 1.0))
    for seconds in (0.5, 0.75, 1.0, 1.5):
        histogram.observe(seconds)
    assert histogram.sample("gateway_added_seconds").buckets == (1, 2, 1)


def test_gauges_add_up_or_the_largest_counts() -> None:
    running, oldest = "gateway_requests_running", "gateway_journal_oldest_open_seconds"
    found = add_up([[Sample(running, (), 2), Sample(oldest, (), 5)], [Sample(running, (), 3), Sample(oldest, (), 4)]])
    assert {sample.name: sample.value for sample in found} == {running: 5, oldest: 5}


def test_counters_outlive_their_process() -> None:
    board = Board(monotonic=Clock())
    board.mark_started("proxy-0", 1)
    board.heard("proxy-0", calls(7))
    assert (value(board, CALLS, LABELS), value(board, "gateway_requests_running")) == (7, 1)
    board.mark_ended("proxy-0")
    assert (value(board, CALLS, LABELS), value(board, "gateway_requests_running")) == (7, 0)
    board.mark_started("proxy-0", 2)
    board.heard("proxy-0", calls(2))
    board.heard("proxy-0", calls(3))
    assert value(board, CALLS, LABELS) == 10
    assert value(board, "gateway_process_starts_total", ("proxy-0",)) == 2
    board.mark_started("proxy-1", 3)
    board.heard("proxy-1", calls(5))
    assert value(board, CALLS, LABELS) == 15


def test_readiness_says_which_process_is_why() -> None:
    clock = Clock()
    board = Board(monotonic=clock)
    assert board.readiness()[0] is False  # nobody has started
    board.mark_started("proxy-0", 1)
    assert board.readiness()[1]["processes"]["proxy-0"]["problem"] == "it is starting"
    board.heard("proxy-0", Status())
    assert board.readiness()[0] is True
    board.heard("proxy-0", Status(failure="No space left on device"))
    ready, body = board.readiness()
    assert (ready, body["processes"]["proxy-0"]["problem"]) == (False, "No space left on device")
    board.heard("proxy-0", Status(waiting="redis"))
    ready, body = board.readiness()
    assert (ready, body["processes"]["proxy-0"]["waits_for"]) == (True, "redis")  # calls go on
    clock.now_s += 16
    assert "said nothing for 16 s" in board.readiness()[1]["processes"]["proxy-0"]["problem"]
    board.mark_ended("proxy-0")
    assert "being started again" in board.readiness()[1]["processes"]["proxy-0"]["problem"]


def test_prometheus_reads_it() -> None:
    histogram = Histogram(LATENCY_S)
    for seconds in (0.0001, 0.002, 60):
        histogram.observe(seconds)
    board = Board(monotonic=Clock())
    board.mark_started("proxy-0", 1)
    nano = 123_456_789_012_345
    samples = (
        histogram.sample("gateway_added_seconds", ("chat",)),
        Sample("gateway_cost_nano_usd_total", LABELS, nano),
    )
    board.heard("proxy-0", Status(samples=samples))
    registry = CollectorRegistry()
    registry.register(parse_metrics(board))
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    shown = {family.name: family for family in families}
    assert {family.name + ("_total" if family.type == "counter" else "") for family in families} == set(FAMILIES)
    (cost,) = shown["gateway_cost_nano_usd"].samples
    assert cost.value == nano
    buckets = {s.labels["le"]: s.value for s in shown["gateway_added_seconds"].samples if s.name.endswith("_bucket")}
    assert (buckets["0.0005"], buckets["0.0025"], buckets["5.0"], buckets["+Inf"]) == (1, 2, 2, 3)
    assert sum(s.value for s in shown["gateway_added_seconds"].samples if s.name.endswith("_count")) == 3


@pytest.mark.parametrize(("told", "shown"), [("8e5552e", "8e5552e"), ("", ""), ("not a commit", "")])
def test_a_host_says_what_it_runs(told: str, shown: str) -> None:
    board = Board(monotonic=Clock(), build=build_labels({COMMIT_VARIABLE: told}))
    assert value(board, "gateway_build_info", (VERSION, shown, python_version())) == 1
    board.mark_started("worker", 1)
    board.heard("worker", Status())
    board.mark_ended("worker")
    assert value(board, "gateway_build_info", (VERSION, shown, python_version())) == 1


def test_only_counters_are_kept_of_a_dead_process() -> None:
    kept = counters_only([Sample(name) for name in FAMILIES])
    assert {sample.name for sample in kept} == {name for name, one in FAMILIES.items() if one.kind != "gauge"}


def test_the_operator_is_told_what_each_metric_means() -> None:
    told = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert [name for name in FAMILIES if f"`{name}`" not in told] == []
