"""The rules of this repository that a reader relies on, checked on the source: lengths, imports, connections.

Which folder may import which is in .importlinter.

An exception is listed here with its reason and its present size: it may shrink, never grow, and must go when it is
no longer needed.
"""

import ast
import re
from collections.abc import Iterator
from typing import Final

from tests.support.source import TOP, all_files, files, tree, walk

FILE_LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 60

LONG_FILES: Final[dict[str, int]] = {}
"""Lines of files that are longer than they should be."""
LONG_FUNCTIONS: Final[dict[str, int]] = {}
"""Lines of functions that are longer than they should be, as `file:name`."""


OPENERS: Final = frozenset({"ClientSession", "create_pool", "from_url", "open_connection", "open_pool", "open_redis"})
OPEN_HERE: Final = (
    "gateway/processes/",
    "gateway/doctor/",
    "gateway/sandbox/",
    "gateway/stores/",
    "gateway/http/outbound.py",
    "gateway/billing/stripe_http.py",
    # Opened from settings for whoever closes them.
    "gateway/accounts/opening.py",
    "gateway/hosts/opening.py",
    "gateway/ledger/opening.py",
    "gateway/limits/opening.py",
    # Commands that need the ledger at their end only, or not always.
)
"""Where connections are opened; everything else is given what it uses."""


def opens(file: str, module: ast.Module) -> list[str]:
    """Every place in the file that opens a connection."""
    found = []
    for node in walk(module):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found += [f"{file}:{node.lineno}: {called}"] if called in OPENERS else []
    return found


def imports(file: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything the file imports; `from a import b` counts as `a.b`."""
    for node in walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def functions(file: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of the file, methods and inner ones too."""
    for node in walk(tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_tests_and_bench_are_not_imported_by_what_ships() -> None:
    ships = [file for file in files() if file.startswith(("gateway/", "pricing/", "migrations/"))]
    wrong = [
        f"{file}:{line}" for file in ships for line, name in imports(file) if name.startswith(("tests.", "bench."))
    ]
    assert wrong == []


def test_connections_are_opened_in_few_places() -> None:
    ships = [file for file in files() if file.startswith(("gateway/", "pricing/"))]
    opening = {file: opens(file, tree(file)) for file in ships}
    assert [place for file, places in opening.items() if not file.startswith(OPEN_HERE) for place in places] == []
    used = [file for file, places in opening.items() if places]
    assert [place for place in OPEN_HERE if not any(file.startswith(place) for file in used)] == []


def test_an_opened_connection_is_noticed() -> None:
    planted = ast.parse("async def serve(dsn): return await asyncpg.create_pool(dsn)")
    assert opens("gateway/rooms/api.py", planted) == ["gateway/rooms/api.py:1: create_pool"]


def test_no_import_inside_a_function() -> None:
    wrong = []
    for file in files():
        inside = {line for each in functions(file) for line in range(each.lineno, (each.end_lineno or 0) + 1)}
        found = (node for node in walk(tree(file)) if isinstance(node, ast.Import | ast.ImportFrom))
        wrong += [f"{file}:{node.lineno}" for node in found if node.lineno in inside]
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


def copies_of_the_translation(file: str, top: ast.AST) -> list[str]:
    """Where a file decides by itself what asyncpg's errors mean."""
    families = ("PostgresError", "InterfaceError", "InternalClientError")
    found = (node for node in walk(top) if isinstance(node, ast.Attribute) and node.attr in families)
    return [f"{file}:{node.lineno}: {name}" for node in found if (name := ast.unparse(node)).startswith("asyncpg.")]


def test_what_postgres_raises_is_translated_in_one_place() -> None:
    """`translate` of gateway/stores/postgres.py distinguishes an outage from a bug; a copy of it would not."""
    planted = ast.parse("try: pass\nexcept (OSError, asyncpg.InterfaceError): pass")
    assert copies_of_the_translation("x", planted) == ["x:2: asyncpg.InterfaceError"]
    wrong = []
    for file in files():
        if file.startswith("gateway/") and not file.startswith("gateway/stores/"):
            wrong += copies_of_the_translation(file, tree(file))
    assert wrong == []
