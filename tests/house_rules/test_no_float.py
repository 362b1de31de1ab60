"""Money is exact: no float meets an amount, in any file that ships.

Two rules, both by what a float is used for. In every file, a statement that names an amount has no float: none
written out, no `float`, no `/` but by a Decimal. In a file that names an amount anywhere, or lies below a folder of
money, a float must say by its name that it is a time or a share, since a variable could carry it to the amount.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

import pytest

from tests.support.source import files, tree, walk

SHIPPED: Final = ("gateway/", "pricing/", "migrations/")
AMOUNT: Final = re.compile(
    r"(?:^|_)(?:nano|usd|cost|costs|billed|bill|amount|amounts|price|priced|prices|cents|markup|charge|charged|spent"
    r"|spending|credit|credits|fee|fees|revenue|margin|money)(?:_|$)"
)
"""What names an amount, as a word of a name in snake case."""
EXACT: Final = frozenset({"Decimal"})
"""Must not be made from a float, wherever it is used."""
MONEY_PATH: Final = re.compile(
    r"(?:^|[/_])(?:pricing|prices?|bill|billing|ledger|outbox|spending|budgets?|credits?|reports?|usage|settle|adjust"
    r"|close|reconcile)(?:[/_.]|$)"
)
"""What says, as a word of a path, that everything there is about amounts."""
UNITS: Final = re.compile(
    r"(?:^|_)(?:s|ms|us|seconds|hours|days|ratio|share|clock|now|time|timeout|pause|sleep|monotonic|random)$"
)
"""How a name ends that is about time, or about a share of something."""
ABOUT_TYPES: Final = frozenset({"isinstance", "sleep"})
CONVERTS: Final = frozenset({"float", "truediv", "fsum"})
"""Functions that make floats."""


def words(name: str) -> str:
    """A name in snake case, whatever it is written in."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def names_in(node: ast.AST) -> Iterator[str]:
    """Every name that this node itself is or gives."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.Subscript(slice=ast.Constant(value=str(name))):
            yield name


def is_amount(node: ast.AST) -> bool:
    """Whether this names an amount."""
    return any(AMOUNT.search(words(name)) and not UNITS.search(words(name)) for name in names_in(node))


def is_float(node: ast.AST) -> bool:
    """Whether this is a float written out, or makes one."""
    match node:
        case ast.Constant(value=value):
            return isinstance(value, float)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in CONVERTS
        case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
            return not is_exact(node)
    return False


def is_exact(node: ast.BinOp | ast.AugAssign) -> bool:
    """Whether a division has a `Decimal(…)` right below it: Python refuses to mix Decimals with floats."""
    sides = [node.left, node.right] if isinstance(node, ast.BinOp) else [node.value]
    while sides:
        match sides.pop():
            case ast.Call(func=ast.Name(id="Decimal")):
                return True
            case ast.BinOp(left=left, right=right, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div()):
                sides += [left, right]
            case ast.UnaryOp(operand=operand):
                sides.append(operand)
    return False


def parents_of(module: ast.Module) -> dict[ast.AST, ast.AST]:
    """What each node belongs to; a default belongs to its argument."""
    parents = {child: node for node in walk(module) for child in ast.iter_child_nodes(node)}
    for node in walk(module):
        if isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            parents |= dict(zip(reversed(node.defaults), reversed(positional), strict=False))
            parents |= {
                default: name for name, default in zip(node.kwonlyargs, node.kw_defaults, strict=True) if default
            }
    return parents


def is_scope(node: ast.AST) -> bool:
    """Whether this is looked at on its own: a statement, an argument, or what is passed as a time or a share."""
    return isinstance(node, ast.stmt | ast.arg | ast.ExceptHandler) or (
        isinstance(node, ast.keyword) and has_unit(node)
    )


def own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope without those of the scopes in it."""
    for child in ast.iter_child_nodes(scope):
        if not is_scope(child):
            yield child
            yield from own_nodes(child)


def meetings_of(module: ast.Module) -> list[int]:
    """Lines where a float stands in one statement with an amount."""
    lines = []
    for node in walk(module):
        if is_scope(node):
            own = [node, *own_nodes(node)]
            floats = [each for each in own if is_float(each)]
            if floats and any(is_amount(each) or not EXACT.isdisjoint(names_in(each)) for each in own):
                lines += [getattr(each, "lineno", 0) for each in floats]
    return lines


def unnamed(module: ast.Module) -> list[int]:
    """Lines with a float, written out or as a type, that does not say by a name that it is a time or a share."""
    parents = parents_of(module)
    lines = []
    for node in walk(module):
        if isinstance(node, ast.Constant | ast.Name) and is_float(node):
            above: ast.AST | None = node
            while above is not None and not has_unit(above):
                above = parents.get(above)
            lines += [node.lineno] if above is None else []
    return lines


def has_unit(node: ast.AST) -> bool:
    """Whether this names a time or a share, or only asks what type something is."""
    match node:
        case ast.arg(arg=name) | ast.keyword(arg=str(name)):
            return UNITS.search(words(name)) is not None
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return UNITS.search(words(name)) is not None
        case ast.AnnAssign(target=target) | ast.Assign(targets=[target]) | ast.AugAssign(target=target):
            return any(UNITS.search(words(name)) for name in names_in(target))
        case ast.Call(func=func):
            return any(name in ABOUT_TYPES for name in names_in(func))
        case ast.BinOp(left=left, right=right) | ast.Compare(left=left, comparators=[right]):
            return any(UNITS.search(words(name)) for side in (left, right) for name in names_in(side))
    return False


def breaches(file: str, module: ast.Module) -> list[int]:
    """Lines of a file where a float meets an amount, or might."""
    lines = meetings_of(module)
    if MONEY_PATH.search(file) or any(is_amount(node) for node in walk(module)):
        lines += unnamed(module)
    return sorted(set(lines))


def shipped() -> list[str]:
    """Every file that ships."""
    return [file for file in files() if file.startswith(SHIPPED)]


def test_no_float_meets_an_amount() -> None:
    assert [f"{file}:{line}" for file in shipped() for line in breaches(file, tree(file))] == []


FOLDERS: Final = sorted({PurePosixPath(file).parent.as_posix() for file in shipped()})
PLANTS: Final = (
    "cost_usd = 0.1",
    "def bill(nano: float): ...",
    "total = float(row.billed_nano)",
    "shown = cost_nano / 1_000_000_000",
    "row['cost_usd'] = row['tokens'] * 0.15",
    "price /= 1000",
    "total = Decimal(0.1)",
    "settle(wait_s=cost_nano / 1000)",
    "cost_nano = 1\nhalf = 0.5\ncost_nano *= half",
    "cost_nano = 1\ndef scale(by: float): return cost_nano * by",
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_float_planted_in_a_file_of_any_folder_is_noticed(folder: str) -> None:
    """At the end of a file that is there, so that what else it holds cannot hide the plant."""
    host = next(file for file in shipped() if PurePosixPath(file).parent.as_posix() == folder)
    clean = tree(host)
    for plant in PLANTS:
        planted = ast.parse(f"{ast.unparse(clean)}\n\n{plant}\n")
        assert breaches(host, planted), f"{host}: {plant}"


@pytest.mark.parametrize(
    "file",
    ["pricing/cost.py", "gateway/ledger/x.py", "gateway/billing/stripe.py", "gateway/billing/reporter.py"],
)
def test_where_all_is_money_any_float_without_a_unit_is_noticed(file: str) -> None:
    assert breaches(file, ast.parse("half = 0.5")) == [1]
    assert breaches("gateway/kit/x.py", ast.parse("half = 0.5")) == []


@pytest.mark.parametrize(
    "fine",
    [
        "cost = 1\nWAIT_S = 0.1",
        "cost = 1\nclass A:\n  after_s: float | None",
        "cost = 1\ndef f(t_s: float = 0.5, *, u_s: float = 0.1): ...",
        "cost = 1\nisinstance(x, float)",
        "cost = 1\nself.waited_s = 0.0",
        "cost = 1\nawait asyncio.sleep(0.1)",
        "cost = Decimal(1) / 3\nshare = cost_usd * 100 / Decimal(total)",
        "bill(cost_usd, wait_s=0.5)",
        "ratio = 0.5\nmean = sum(lengths) / 2",
    ],
)
def test_a_time_a_share_and_a_decimal_are_fine(fine: str) -> None:
    assert breaches("gateway/x.py", ast.parse(fine)) == []
