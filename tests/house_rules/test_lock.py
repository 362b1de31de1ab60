"""The lock, the floors and the Makefile: what a fresh clone starts from."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import Any, Final

import pytest

from gateway.kit.version import VERSION
from tests.clients.table import CLIENTS
from tests.support.source import OURS, TOP, all_files, files, tree, walk

NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
FLOOR: Final = re.compile(r">=\s*([0-9.]+)")
PYTHONS: Final = ("3.11", "3.12", "3.13")
"""What .ci/run tests."""
AFTER: Final = "3.14"
"""Refused at set-up until it is tested."""
ELSEWHERE: Final = "tests/clients/python/"
"""Programs whose imports are installed into an environment of their own, from a lock of their own beside them."""


def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((TOP / "pyproject.toml").read_text())


def normal(name: str) -> str:
    """A distribution's name as every tool spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> dict[str, str]:
    """Every direct dependency, extras included: normal name and the requirement as written."""
    listed = list(project()["project"]["dependencies"])
    for extra in project()["project"]["optional-dependencies"].values():
        listed += extra
    return {normal(name.group()): line for line in listed if (name := NAME.match(line))}


def pins() -> dict[str, str]:
    """What the lock pins: normal name and version."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", (TOP / "requirements.lock").read_text(), re.MULTILINE)
    return {normal(name): version for name, version in found}


def number(version: str) -> tuple[int, ...]:
    """The release part of a version, comparable."""
    release = re.match(r"\d+(\.\d+)*", version)
    assert release, version
    return tuple(int(part) for part in release.group().split("."))


def test_every_direct_dependency_has_a_floor_that_the_lock_meets() -> None:
    locked = pins()
    for name, line in requirements().items():
        floor = FLOOR.search(line)
        assert floor, f"{line} has no floor"
        assert number(locked[name]) >= number(floor.group(1)), f"{line}, but the lock has {locked[name]}"


def test_what_is_imported_is_a_direct_dependency() -> None:
    owners = packages_distributions()
    direct = requirements()
    wrong = set()
    for file in files():
        for node in walk(tree(file)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            else:
                continue
            for top in {name.partition(".")[0] for name in names} - OURS - sys.stdlib_module_names:
                if not {normal(owner) for owner in owners.get(top, [])} & set(direct):
                    wrong.add(f"{file}: {top}")
    assert sorted(one for one in wrong if not one.startswith(ELSEWHERE)) == []


def test_every_client_has_its_program_and_its_lock() -> None:
    wanted = {"python/told.py", "node/told.mjs", "node/runtime/package.json", "node/runtime/package-lock.json"}
    for client in CLIENTS:
        if client.language == "python":
            wanted |= {f"python/{client.file}{end}" for end in ("_calls.py", ".in", ".lock")}
        else:
            wanted |= {f"node/{client.file}/{name}" for name in ("calls.mjs", "package.json", "package-lock.json")}
    found = {name.removeprefix("tests/clients/") for name in all_files() if name.count("/") > 2}
    assert {name for name in found if name.startswith(("python/", "node/"))} == wanted


def test_the_locks_of_npm_name_no_registry_and_hash_everything() -> None:
    for file in sorted(TOP.glob("tests/clients/node/*/package-lock.json")):
        packages = json.loads(file.read_text())["packages"]
        assert [name for name, one in packages.items() if "resolved" in one] == []
        assert [name for name, one in packages.items() if name and "integrity" not in one] == []


@pytest.mark.parametrize("lock", sorted(name for name in all_files() if name.endswith(".lock")))
def test_a_lock_names_no_index_and_hashes_everything(lock: str) -> None:
    entry = re.compile(r"[a-z0-9._-]+==[^ ]+( ; [^\\]+)? \\")
    digest = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
    lines = (TOP / lock).read_text().splitlines()
    assert [line for line in lines if not entry.fullmatch(line) and not digest.fullmatch(line)] == []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if entry.fullmatch(line):
            assert digest.fullmatch(following), f"{line} has no hash"


def test_help_lists_every_target_and_nothing_else() -> None:
    text = (TOP / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert declared
    told = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=TOP, check=True, capture_output=True, text=True
    ).stdout
    assert [line.split()[1] for line in told.splitlines()] == declared.group(1).split()
    for line in told.splitlines():
        assert len(line.split()) > 2, f"nothing is said about {line}"


def test_the_python_floor_is_stated_once_and_kept() -> None:
    assert project()["project"]["requires-python"] == f">={PYTHONS[0]},<{AFTER}"
    assert project()["tool"]["mypy"]["python_version"] == PYTHONS[0]
    assert project()["tool"]["ruff"]["target-version"] == "py" + PYTHONS[0].replace(".", "")


def test_the_version_is_the_same_everywhere() -> None:
    assert project()["project"]["version"] == VERSION


def test_every_python_that_is_promised_is_tested_and_no_other_is_taken() -> None:
    assert f"supported=({' '.join(PYTHONS)})\n" in (TOP / ".ci" / "run").read_text()
    makefile = (TOP / "Makefile").read_text()
    candidates = re.search(r"^CANDIDATES := python3 (.+)$", makefile, re.MULTILINE)
    assert candidates
    assert set(candidates.group(1).split()) == {f"python{version}" for version in PYTHONS}
