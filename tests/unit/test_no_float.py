"""Money is exact: no float where amounts are handled."""

import ast
from typing import Final

from tests.unit.source import files, tree

MONEY: Final = (
    "pricing/",
    "gateway/core/billing",
    "gateway/edges/billing",
    "gateway/edges/ledger",
    "gateway/edges/outbox",
    "gateway/flows/bill",
)
"""Beginnings of the paths where amounts are handled: no float there, except for seconds."""


def floats(module: ast.Module) -> list[int]:
    """Lines with a float that is not a duration: durations carry their unit in the name (`timeout_s`)."""
    parents = {child: node for node in ast.walk(module) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(module):
        if isinstance(node, ast.arguments):  # a default belongs to its argument
            positional = [*node.posonlyargs, *node.args]
            parents |= dict(zip(reversed(node.defaults), reversed(positional), strict=False))
            parents |= {
                default: name for name, default in zip(node.kwonlyargs, node.kw_defaults, strict=True) if default
            }
    lines = []
    for node in ast.walk(module):
        if isinstance(node, ast.Constant | ast.Name) and is_float(node):
            above: ast.AST | None = node
            while above is not None and not is_duration(above):
                above = parents.get(above)
            lines += [node.lineno] if above is None else []
    return lines


def is_float(node: ast.Constant | ast.Name) -> bool:
    """Whether this is a float written out, or the word."""
    return node.id == "float" if isinstance(node, ast.Name) else isinstance(node.value, float)


def is_duration(node: ast.AST) -> bool:
    """Whether this is about seconds (or about chance, which only waiting uses), or only asks what type something is."""
    match node:
        case (
            ast.arg(arg=name)
            | ast.keyword(arg=str(name))
            | ast.FunctionDef(name=name)
            | ast.AsyncFunctionDef(name=name)
        ):
            return name.endswith(("_s", "_seconds")) or name in ("sleep", "monotonic", "random")
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
            return name.lower().endswith("_s")
        case ast.Call(func=ast.Name(id=name)):
            return name in ("isinstance", "sleep")
    return False


def test_no_float_in_money_code() -> None:
    money = [file for file in files() if file.startswith(MONEY)]
    assert len(money) > 10
    assert [f"{file}:{line}" for file in money for line in floats(tree(file))] == []


def test_a_float_is_noticed_and_a_duration_is_not() -> None:
    assert floats(ast.parse("cost = 0.1\nprice = float(x)\ndef f(usd: float): ...")) == [1, 2, 3]
    durations = (
        "WAIT_S = 0.1",
        "class A:\n  after_s: float | None",
        "def f(t_s: float = 0.5, *, u_s: float = 0.1): ...",
        "isinstance(x, float)",
    )
    assert floats(ast.parse("\n".join(durations))) == []
