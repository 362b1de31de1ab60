"""docs/threat-model.md: each attack has a test, and each file that is named is there."""

import re
from typing import Final

from tests.support.source import TOP

PAGE: Final = (TOP / "docs" / "threat-model.md").read_text()
TEST: Final = re.compile(r"`(tests/[\w/]+\.py)`")
FINDINGS: Final = (
    *(f"A{number}" for number in range(1, 59)),
    *("C1", "C2", "C3"),
    *(f"H{number}" for number in range(1, 9)),
    *(f"M{number}" for number in range(1, 9)),
)


def attacks() -> list[str]:
    """Every row of the tables of attacks."""
    part = PAGE.partition("## Attacks\n")[2].partition("## Not defended\n")[0]
    return [line for line in part.splitlines() if line.startswith("| ") and not line.startswith("| attack ")]


def test_each_attack_names_tests_that_exist() -> None:
    rows = attacks()
    assert len(rows) > 30
    assert [row for row in rows if not TEST.search(row.rsplit("|", 2)[1])] == []
    assert sorted({name for name in TEST.findall(PAGE) if not (TOP / name).is_file()}) == []


def test_every_attack_of_the_list_has_its_place() -> None:
    named = set(re.findall(r"\b[ACHM]\d+\b", PAGE))
    for first, last in re.findall(r"\bA(\d+)–A(\d+)\b", PAGE):
        named |= {f"A{number}" for number in range(int(first), int(last) + 1)}
    assert [one for one in FINDINGS if one not in named] == []
