"""The contracts of .importlinter hold, and each of them refuses what it is there to refuse."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.unit.source import TOP

SHIPS: Final = ("gateway", "pricing", "migrations")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """`lint-imports` over the packages in this folder."""
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([program, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=300)


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
        ("gateway/edges/keys.py", "gateway.flows.bill", "Layers"),
        ("gateway/core/event.py", "gateway.app", "Layers"),
        ("pricing/cost.py", "gateway.core.event", "Layers"),
        ("gateway/flows/bill.py", "gateway.flows.flush", "Flows"),
        ("gateway/edges/keys.py", "gateway.edges.ledger", "Edges"),
        ("gateway/sandbox/server.py", "gateway.flows.bill", "The stand-ins"),
        ("gateway/embedded/house.py", "gateway.core.config", "The embedded servers"),
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
