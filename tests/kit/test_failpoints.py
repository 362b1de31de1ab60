"""Failpoints: each is passed at one place of the product and killed at by a test; nothing but a test can arm one."""

import ast

import pytest

from gateway.kit.failpoints import SITES, pass_by
from tests.chaos.entry import armed
from tests.support.source import files, tree, walk


def passed() -> list[str]:
    """The name given at every place in the product where a failpoint is called."""
    found = []
    for file in files():
        for node in walk(tree(file)) if file.startswith("gateway/") else ():
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "").lstrip("_") == "failpoint":
                assert isinstance(node.args[0], ast.Constant), f"{file}:{node.lineno}"
                found.append(str(node.args[0].value))
    return found


def test_every_site_is_passed_at_one_place() -> None:
    assert sorted(passed()) == sorted(SITES)


def test_no_environment_arms_the_product() -> None:
    spelled = [file for file in files() if file.startswith("gateway/") for word in _words(file) if "CHAOS" in word]
    assert spelled == []


def _words(file: str) -> list[str]:
    return [node.value for node in walk(tree(file)) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_unarmed_it_is_the_one_of_production() -> None:
    assert armed({}) is pass_by


def test_a_site_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SystemExit, match=r"there is no site 'proxy\.opend'"):
        armed({"CHAOS_FAILPOINT": "proxy.opend", "CHAOS_DIED": "nowhere"})
