"""docs/faults.md names tests that exist, and every fault of the matrix."""

import re
from pathlib import Path

from tests.support.source import TOP

PAGE = (TOP / "docs" / "faults.md").read_text("utf-8")
NAMED = re.compile(r"`(tests/[\w/]+(?:\.py)?)(?:::(\w+))?`(?:, `(test_\w+)`)?(?:, `(test_\w+)`)?")
FAULTS = 65


def test_every_test_it_names_is_there() -> None:
    found = NAMED.findall(PAGE)
    assert len(found) > 40
    missing = []
    for file, *names in found:
        path = TOP / file
        text = path.read_text("utf-8") if path.is_file() else ""
        missing += [] if path.exists() else [file]
        missing += [f"{file}::{name}" for name in names if name and f"def {name}(" not in text]
    assert missing == []


def test_every_fault_has_its_line() -> None:
    numbers: set[int] = set()
    for cell in re.findall(r"^\| ([0-9, –]+) \|", PAGE, re.MULTILINE):
        for part in cell.replace(" ", "").split(","):
            first, _, last = part.partition("–")
            if first:
                numbers |= set(range(int(first), int(last or first) + 1))
    assert numbers == set(range(1, FAULTS + 1))


def test_the_operations_page_links_it() -> None:
    assert "faults.md" in (Path(TOP) / "docs" / "operations.md").read_text("utf-8")
