"""Commands write to the terminal through gateway/cli only, which shows control characters as escapes."""

import ast
from typing import Final

from tests.support.source import files, tree, walk

HERE: Final = "gateway/cli/"
PAST: Final[dict[str, str]] = {
    "gateway/kit/log.py": "the log: JSON lines",
    "gateway/embedded/guard.py": "hands the descriptor to a child, writes nothing",
    "gateway/processes/child.py": "one line of our own for who stopped it, without the command line's imports",
    "gateway/prices/cli.py": "JSON lines, each escaped; a million of them are not flushed one by one",
}
"""Who else may hold a standard stream, and why."""
STREAMS: Final = frozenset({"sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"})
CALLS: Final = frozenset({"print", "typer.echo", "typer.secho", "typer.style", "click.echo", "click.secho"})
DRAWING: Final = frozenset({"rich", "click"})


def writes(file: str, module: ast.Module) -> list[str]:
    """Every place in the file that could write to the terminal by itself."""
    found = []
    for node in walk(module):
        what = ""
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS:
            what = ast.unparse(node.func)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in STREAMS:
            what = ast.unparse(node)
        elif isinstance(node, ast.Import):
            what = next((each.name for each in node.names if each.name.partition(".")[0] in DRAWING), "")
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{each.name}" for each in node.names}
            drawing = node.module is not None and node.module.partition(".")[0] in DRAWING
            what = str(node.module) if drawing else next(iter(sorted(names & (STREAMS | CALLS))), "")
        found += [f"{file}:{node.lineno}: {what}"] if what else []  # type: ignore[attr-defined]  # each has a line
    return found


def test_no_command_writes_past_the_helper() -> None:
    ships = [file for file in files() if file.startswith(("gateway/", "pricing/")) and not file.startswith(HERE)]
    past = {file: places for file in ships if (places := writes(file, tree(file)))}
    assert [place for file, places in past.items() if file not in PAST for place in places] == []
    assert sorted(PAST.keys() - past.keys()) == []


def test_a_write_past_it_is_noticed() -> None:
    planted = """
import rich.table
from rich.console import Console
from sys import stdout
def show(name):
    print(name)
    typer.echo(name, err=True)
    sys.stderr.write(name)
"""
    found = [place.rpartition(": ")[2] for place in writes("planted.py", ast.parse(planted))]
    assert sorted(found) == ["print", "rich.console", "rich.table", "sys.stderr", "sys.stdout", "typer.echo"]
