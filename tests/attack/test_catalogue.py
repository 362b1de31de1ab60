"""The catalogue names tests that are there, and an attack that was not tried is not held."""

from tests.attack.__main__ import judge
from tests.attack.catalogue import CATALOGUE, Attack
from tests.support.source import TOP

ONE = Attack("an attack", "a wall", ("tests/a.py::test_a", "tests/b.py"))


def test_every_test_it_names_is_there() -> None:
    missing = []
    for attack in CATALOGUE:
        for name in attack.tests:
            file, _, test = name.partition("::")
            path = TOP / file
            if not path.is_file() or (test and f"def {test.partition('[')[0]}(" not in path.read_text("utf-8")):
                missing.append(name)
    assert missing == []
    assert len({attack.name for attack in CATALOGUE}) == len(CATALOGUE)


def test_what_is_held() -> None:
    passed = {"tests/a.py::test_a[1]", "tests/a.py::test_a[2]", "tests/a.py::test_ab", "tests/b.py::test_b"}
    assert judge(ONE, passed, set()) == (3, [])
    assert judge(ONE, passed, {"tests/b.py::test_c"}) == (4, ["tests/b.py::test_c"])
    # A test that passed and whose clean-up failed is in both.
    assert judge(ONE, passed, {"tests/a.py::test_a[2]"}) == (3, ["tests/a.py::test_a[2]"])


def test_what_was_not_tried_is_not_held() -> None:
    assert judge(ONE, {"tests/a.py::test_a"}, set()) == (1, ["tests/b.py: not run"])
    assert judge(ONE, {"tests/a.py::test_ab", "tests/b.py::x"}, set()) == (1, ["tests/a.py::test_a: not run"])
