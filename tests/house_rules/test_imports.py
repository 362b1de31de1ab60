"""The contracts of .importlinter hold, and each of them refuses what it is there to refuse."""

import ast
import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.source import TOP, files, tree, walk

SHIPS: Final = ("gateway", "pricing", "migrations")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """`lint-imports` over the packages in this folder."""
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [sys.executable, program, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What ships, with the contracts, in a folder of its own."""
    shutil.copy(TOP / ".importlinter", tmp_path)
    for package in SHIPS:
        shutil.copytree(TOP / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.gz"))
    return tmp_path


def test_every_contract_holds() -> None:
    linted = lint_imports(TOP)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize(
    ("file", "module", "contract"),
    [
        ("gateway/keys/verify.py", "gateway.proxy.relay", "Packages"),
        ("gateway/keys/sync.py", "gateway.keys.commands", "Use cases"),
        ("gateway/usage/event.py", "gateway.processes.proxy", "Packages"),
        ("pricing/cost.py", "gateway.usage.event", "Packages"),
        ("gateway/billing/reporter.py", "gateway.limits.limiter", "Packages"),
        ("gateway/kit/ids.py", "gateway.config.settings", "Packages"),
        ("gateway/sandbox/server.py", "gateway.processes.proxy", "Packages"),
        ("gateway/limits/claims.py", "time", "Values and rules"),
        ("gateway/usage/settle.py", "gateway.kit.log", "Values and rules"),
        ("gateway/proxy/relay.py", "gateway.billing.stripe", "A proxy or keeper starts"),
        ("gateway/ledger/ship.py", "typer", "A proxy or keeper starts"),
        ("gateway/keys/verify.py", "stripe", "Only billing"),
        ("gateway/rooms/api.py", "rich", "Only commands"),
        ("gateway/rooms/ring.py", "gateway.cli.console", "Use cases"),
        ("gateway/embedded/servers.py", "gateway.config.settings", "The embedded servers"),
        ("migrations/__init__.py", "pricing.cost", "Migrations"),
    ],
)
def test_a_forbidden_import_is_refused(copy: Path, file: str, module: str, contract: str) -> None:
    with (copy / file).open("a") as source:
        source.write(f"\nimport {module}\n")
    linted = lint_imports(copy)
    assert linted.returncode == 1, linted.stderr
    broken = [line for line in linted.stdout.splitlines() if line.endswith(" BROKEN")]
    assert any(line.startswith(contract) for line in broken), linted.stdout


def test_a_file_that_says_pure_is_checked() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(TOP / ".importlinter")
    held = contracts["importlinter:contract:pure"]["source_modules"].split()
    said = [
        file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for file in files()
        if file.startswith(("gateway/", "pricing/")) and re.search(r"\bPure\b", ast.get_docstring(tree(file)) or "")
    ]
    assert len(said) > 20
    assert [module for module in said if not any(f"{module}.".startswith(f"{each}.") for each in held)] == []


def test_only_files_of_commands_know_the_command_line() -> None:
    """So a new use case cannot forget the contract: what draws or reads options is called so."""
    names = r"(\w+_)?(cli|commands?|output)|as_table|demo"
    named = re.compile(rf"gateway/(cli/.*|.*/({names})\.py|__main__\.py)")
    drawing = [
        file
        for file in files()
        if file.startswith("gateway/")
        and any(
            isinstance(node, ast.ImportFrom) and node.module in ("gateway.cli.console", "gateway.cli.command")
            for node in walk(tree(file))
        )
    ]
    assert len(drawing) > 30
    assert [file for file in drawing if not named.fullmatch(file)] == []
