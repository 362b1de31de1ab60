"""A seeded sample of `make chaos`: nothing lost, doubled, wrong or invented."""

import pytest

from tests.chaos.outage import outage
from tests.chaos.run import chaos, run

CALLS_MIN = 200


@pytest.mark.parametrize("seed", [1])
def test_a_sample(seed: int) -> None:
    lines: list[str] = []
    figures = run(seed, lambda made: chaos(made, seed, 20.0, 12, lines.append, calls_min=CALLS_MIN, faults_min=10))
    assert figures["clean"], (figures["why"], figures["such_errors"], figures, lines)
    assert figures["faults"] >= 10
    assert figures["calls"] >= CALLS_MIN


def test_two_hosts_over_stores_that_fail_over() -> None:
    lines: list[str] = []
    seed = 964  # the four below are among its first six faults
    figures = run(
        seed, lambda made: chaos(made, seed, 30.0, 12, lines.append, calls_min=CALLS_MIN, faults_min=10), hosts=2
    )
    assert figures["clean"], (figures["why"], figures["such_errors"], figures, lines)
    assert {"failover valkey", "failover postgres", "kill host", "takeover host"} <= figures["by_kind"].keys()
    assert figures["calls"] >= CALLS_MIN


@pytest.mark.parametrize("away", [["valkey"], ["postgres"], ["valkey", "postgres"]], ids="+".join)
def test_stores_that_are_away(away: list[str]) -> None:
    lines: list[str] = []
    figures = run(7, lambda made: outage(made, 7, away, 10.0, 8, lines.append))
    assert figures["clean"], (figures["why"], figures["such_errors"], figures, lines)
    assert figures["clients_saw"].keys() <= {"200", "left"}
    assert figures["backlog_rows"] > 100
