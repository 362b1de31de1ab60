"""`make attack`: every attack of the catalogue, a line each. Exits 1 when one gets through."""

import sys
import time
from collections.abc import Sequence
from typing import Final

import pytest

from tests.attack.catalogue import CATALOGUE, Attack

WORKERS: Final = "2"


class Watcher:
    """Notes what became of every test, by pytest's name of it."""

    def __init__(self) -> None:
        self.failed: Final[set[str]] = set()
        self.passed: Final[set[str]] = set()
        self.unusable: Final[list[str]] = []
        """What could not even be read."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Skipped is not held: nothing was tried."""
        if not report.passed:
            self.failed.add(report.nodeid)
        elif report.when == "call":
            self.passed.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that does not import."""
        if report.failed:
            self.unusable.append(report.nodeid)


def judge(attack: Attack, passed: set[str], failed: set[str]) -> tuple[int, list[str]]:
    """How often it was tried, and what got through: tests that failed, and names that stand for none."""
    tried, through = 0, []
    for name in attack.tests:
        ours = {test for test in passed | failed if test == name or test.startswith((f"{name}::", f"{name}["))}
        tried += len(ours)
        through += sorted(ours & failed) or ([] if ours else [f"{name}: not run"])
    return tried, through


def main(arguments: Sequence[str]) -> int:
    """Runs them all; `arguments` are pytest's."""
    started, watcher = time.monotonic(), Watcher()
    tests = list(dict.fromkeys(test for attack in CATALOGUE for test in attack.tests))
    quiet = ("-q", "--no-header", "--no-summary", "-p", "no:cacheprovider")
    status = pytest.main([*quiet, "-n", WORKERS, "--dist", "loadfile", *arguments, *tests], plugins=[watcher])
    results = [(attack, *judge(attack, watcher.passed, watcher.failed)) for attack in CATALOGUE]
    sys.stdout.write("\n")
    for attack, tried, through in results:
        verdict = "THROUGH" if through else "held"
        sys.stdout.write(f"{verdict:<8}{attack.name}: {attack.held} ({tried} tries)\n")
        for line in through:
            sys.stdout.write(f"        {line}\n")
    for name in watcher.unusable:
        sys.stdout.write(f"not readable: {name}\n")
    count = sum(bool(through) for _, _, through in results)
    tries = len(watcher.passed | watcher.failed)
    sys.stdout.write(
        f"\nattack: {len(results)} attacks, {tries} tries, {count} through, {time.monotonic() - started:.0f} s\n"
    )
    return 1 if count or status != pytest.ExitCode.OK else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
