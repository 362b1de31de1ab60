"""The rules of the house that a reader relies on, held by looking at the source: layers, lengths, imports.

An exception is listed here with its reason and its present size: it may shrink, never grow, and must go when it is
no longer needed.
"""

import ast
import re
from collections.abc import Iterator
from typing import Final

import pytest

from tests.unit.source import OURS, TOP, all_files, files, tree

FILE_LINES_MAX: Final = 300
FUNCTION_LINES_MAX: Final = 60

LONG_FILES: Final[dict[str, int]] = {}
"""Lines of files that are longer than they should be."""
LONG_FUNCTIONS: Final[dict[str, int]] = {}
"""Lines of functions that are longer than they should be, as `file:name`."""

MAY_IMPORT: Final[dict[str, frozenset[str]]] = {
    "root": OURS,
    "sandbox": frozenset({"sandbox", "edges", "core", "pricing"}),
    "embedded": frozenset({"embedded"}),
    "flows": frozenset({"edges", "core", "pricing"}),
    "edges": frozenset({"core", "pricing", "migrations"}),
    "core": frozenset({"core", "pricing"}),
    "pricing": frozenset({"pricing"}),
    "migrations": frozenset({"migrations"}),
}
"""What a layer may import besides its own unit: imports point down only (the table in the design, layers)."""
IMPURE: Final = frozenset(
    {
        "aiohttp",
        "asyncio",
        "asyncpg",
        "concurrent",
        "http",
        "httpx",
        "logging",
        "multiprocessing",
        "openai",
        "random",
        "redis",
        "requests",
        "select",
        "socket",
        "sqlite3",
        "stripe",
        "structlog",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "unkey",
        "urllib3",
        "uvloop",
    }
)
"""Modules that do I/O, read the clock or log: nothing for core and pricing."""
IMPURE_ALLOWED: Final = {
    ("gateway/core/log.py", "logging"),  # what a log line looks like; the root sets it up
    ("gateway/core/log.py", "structlog"),
    ("gateway/core/sockets.py", "socket"),  # numbers of options; the sockets are the edges'
}
OPENERS: Final = frozenset({"ClientSession", "create_pool", "from_url", "open_connection", "open_pool", "open_redis"})


def unit(module: str) -> tuple[str, str]:
    """The layer of a module and the unit in it that may import itself freely: `("flows", "bill")`."""
    parts = [*module.split("."), "", ""]
    if parts[0] != "gateway":
        return parts[0], ""
    if parts[1] in MAY_IMPORT and parts[1] not in OURS:
        return parts[1], parts[2]
    return "root", ""


def module_of(file: str) -> str:
    """`gateway/flows/bill.py` is `gateway.flows.bill`; a package goes by its own name."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(file: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything the file imports; `from a import b` counts as `a.b`."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def functions(file: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of the file, methods and inner ones too."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def breaches_of_layers(file: str, imported: Iterator[tuple[int, str]]) -> list[str]:
    """The imports of `file` that its layer may not have."""
    layer, own = unit(module_of(file))
    wrong = []
    for line, name in imported:
        if name.partition(".")[0] not in OURS or layer not in MAY_IMPORT or layer == "root":
            continue
        other, its = unit(name)
        same_unit = other == layer and (its == own or (its and name == f"gateway.{layer}.{own}"))
        if not same_unit and other not in MAY_IMPORT[layer]:
            wrong.append(f"{file}:{line}: {layer} may not import {name}")
    return wrong


def test_imports_point_down_only() -> None:
    assert [breach for file in files() for breach in breaches_of_layers(file, imports(file))] == []


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("gateway/flows/bill.py", "gateway.flows.flush.run"),
        ("gateway/flows/proxy/relay.py", "gateway.flows.sweep"),
        ("gateway/flows/bill.py", "gateway.embedded.start"),
        ("gateway/edges/keys.py", "gateway.edges.ledger.Ledger"),
        ("gateway/edges/ledger/rows.py", "gateway.edges.billing"),
        ("gateway/edges/keys.py", "gateway.flows.bill"),
        ("gateway/core/event.py", "gateway.edges.keys.Keys"),
        ("gateway/core/event.py", "gateway.app"),
        ("pricing/cost.py", "gateway.core.event"),
        ("gateway/embedded/house.py", "gateway.core.config"),
        ("gateway/sandbox/openai.py", "gateway.flows.bill"),
    ],
)
def test_an_import_that_points_up_or_sideways_is_noticed(file: str, name: str) -> None:
    assert breaches_of_layers(file, iter([(1, name)])) != []


def test_tests_and_bench_are_not_imported_by_what_ships() -> None:
    ships = [file for file in files() if file.startswith(("gateway/", "pricing/", "migrations/"))]
    wrong = [
        f"{file}:{line}" for file in ships for line, name in imports(file) if name.startswith(("tests.", "bench."))
    ]
    assert wrong == []


def test_core_and_pricing_do_nothing_but_compute() -> None:
    pure = [file for file in files() if file.startswith(("gateway/core/", "pricing/"))]
    wrong = [
        f"{file}:{line}: {name}"
        for file in pure
        for line, name in imports(file)
        if (top := name.partition(".")[0]) in IMPURE and (file, top) not in IMPURE_ALLOWED
    ]
    assert wrong == []


def test_flows_open_no_connection() -> None:
    wrong = []
    for file in files():
        if file.startswith("gateway/flows/"):
            for node in ast.walk(tree(file)):
                if isinstance(node, ast.Call):
                    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    wrong += [f"{file}:{node.lineno}: {called}"] if called in OPENERS else []
    assert wrong == []


def test_no_import_inside_a_function() -> None:
    wrong = [
        f"{file}:{node.lineno}"
        for file in files()
        for function in functions(file)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert wrong == []


def test_nothing_happens_at_import_time() -> None:
    """A module of what ships defines things; a bare call, a loop or a `with` at its top would do something."""
    wrong = []
    for file in files():
        for node in tree(file).body if file.startswith(("gateway/", "pricing/", "migrations/")) else []:
            bare = isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant) and not is_wiring(node.value)
            main = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
            known = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            acts = isinstance(node, ast.If | ast.For | ast.While | ast.With | ast.Try | ast.Delete)
            wrong += [f"{file}:{node.lineno}"] if bare or (acts and not main and not known) else []
    assert wrong == []


def is_wiring(node: ast.expr) -> bool:
    """Whether this hangs one command group below another, which is how typer spells a definition."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_typer"


def test_every_module_says_what_it_is() -> None:
    assert [file for file in files() if tree(file).body and not ast.get_docstring(tree(file))] == []


def test_length_of_files() -> None:
    sizes = {file: len((TOP / file).read_text().splitlines()) for file in files()}
    assert ratchet(sizes, FILE_LINES_MAX, LONG_FILES) == []


def test_length_of_functions() -> None:
    sizes: dict[str, int] = {}
    for file in files():
        for node in functions(file):
            name = f"{file}:{node.name}"
            sizes[name] = max(sizes.get(name, 0), (node.end_lineno or node.lineno) - node.lineno + 1)
    assert ratchet(sizes, FUNCTION_LINES_MAX, LONG_FUNCTIONS) == []


def ratchet(sizes: dict[str, int], most: int, listed: dict[str, int]) -> list[str]:
    """What is too long without being listed, has grown since, or need not be listed any more."""
    grown = [
        f"{name}: {size} > {listed.get(name, most)}" for name, size in sizes.items() if size > listed.get(name, most)
    ]
    return grown + [f"{name}: take it off the list" for name in listed if sizes.get(name, 0) <= most]


def test_the_ratchet_turns_one_way() -> None:
    assert ratchet({"a": 300, "b": 310}, 300, {"b": 310}) == []
    assert ratchet({"a": 301, "b": 311}, 300, {"b": 310}) == ["a: 301 > 300", "b: 311 > 310"]
    assert ratchet({"b": 300}, 300, {"b": 310, "c": 400}) == ["b: take it off the list", "c: take it off the list"]


def test_no_registry_and_no_path_of_some_machine() -> None:
    # Spelled in halves, or this file would name them.
    hosts = [a + b for a, b in (("py", "pi.org"), ("python", "hosted.org"), ("registry.npm", "js"), ("crates", ".io"))]
    paths = [f"/{a}{b}/" for a, b in (("wo", "rk"), ("ro", "ot"), ("ho", "me"), ("Us", "ers"))]
    pattern = re.compile("|".join([*map(re.escape, hosts), *(rf"(?<![\w.*}}]){path}\w" for path in paths)]))
    wrong = []
    for file in all_files():
        text = (TOP / file).read_bytes()
        if b"\0" not in text[:4096]:
            found = pattern.search(text.decode(errors="replace"))
            wrong += [f"{file}: {found.group()}"] if found else []
    assert wrong == []


def test_whatever_postgres_may_raise_is_an_outage() -> None:
    """asyncpg has three families of errors; whoever waits out one of them waits out all."""
    wrong = []
    for file in files():
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Tuple) and file.startswith("gateway/"):
                caught = {ast.unparse(each) for each in node.elts}
                if {"OSError", "asyncpg.PostgresError"} <= caught:
                    lacks = {"asyncpg.InterfaceError", "asyncpg.InternalClientError"} - caught
                    wrong += [f"{file}:{node.lineno}: {sorted(lacks)}"] if lacks else []
    assert wrong == []
