"""A seeded sample of `make chaos`: nothing lost, doubled, wrong or invented."""

import pytest

from tests.chaos.run import run


@pytest.mark.parametrize("seed", [1])
def test_a_sample(seed: int) -> None:
    lines: list[str] = []
    figures = run(seed, 20.0, 12, lines.append)
    assert figures["clean"], (figures, lines)
    assert figures["faults"] >= 10
    assert figures["calls"] >= 200
