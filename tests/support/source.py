"""The source tree as the tests of style read it: which files are ours, and each one parsed."""

import ast
import os
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).resolve().parent.parent.parent
PACKAGES: Final = ("gateway", "pricing", "migrations", "tests", "bench")
OURS: Final = frozenset(PACKAGES)
NOT_OURS: Final = frozenset({".git", ".venv", ".gateway", "__pycache__", "build", "dist"})


def files() -> list[str]:
    """Every Python file of ours, relative to the top, as posix paths."""
    return [path for path in all_files() if path.endswith(".py") and path.partition("/")[0] in OURS]


@cache
def all_files() -> tuple[str, ...]:
    """Every file of the project, relative to the top."""
    found = []
    for folder, folders, names in os.walk(TOP):
        folders[:] = [name for name in folders if name not in NOT_OURS and not name.endswith(("_cache", ".egg-info"))]
        found += [(Path(folder) / name).relative_to(TOP).as_posix() for name in names if name not in NOT_OURS]
    return tuple(sorted(name for name in found if not name.startswith(".hypothesis/")))


@cache
def tree(file: str) -> ast.Module:
    """The file, parsed."""
    return ast.parse((TOP / file).read_text(), file)


@lru_cache(maxsize=2048)
def walk(node: ast.AST) -> tuple[ast.AST, ...]:
    """All that is below, as `ast.walk` gives it, for many rules that look at the same files."""
    return tuple(ast.walk(node))
