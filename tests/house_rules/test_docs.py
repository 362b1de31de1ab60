"""The pages of the repository: every relative link leads somewhere, every file that is named is there, the table of
background loops and the folders are complete, and README stays short enough to be read."""

import ast
import re
from typing import Final

from tests.support.source import TOP, all_files, files, tree, walk

LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED_FILE: Final = re.compile(r"`([a-z_]+(?:/[a-z0-9_]+)+\.py)")
"""A Python file, named from the top or from `gateway/`."""
CELL_END: Final = re.compile(r"(?<!\\)\|")
"""A bar of a table, which a backslash makes part of the text, in code too."""
README_LINES_MAX: Final = 150


def test_every_link_leads_somewhere() -> None:
    pages = [TOP / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md")]
    pages += (TOP / "docs").rglob("*.md")
    broken, seen = [], 0
    for page in pages:
        for link in LINK.findall(page.read_text()):
            path = link.partition("#")[0]
            if "://" in link or not path:
                continue
            seen += 1
            if not (page.parent / path).exists():
                broken.append(f"{page.relative_to(TOP)}: {link}")
    assert seen
    assert broken == []


def test_every_row_of_a_table_has_a_cell_for_each_column() -> None:
    torn, seen = [], 0
    for page in (name for name in all_files() if name.endswith(".md")):
        table: list[int] = []
        for number, line in enumerate([*(TOP / page).read_text().splitlines(), ""], 1):
            if line.startswith("|"):
                table.append(len(CELL_END.findall(line)))
                is_torn = len(table) == 2 and not re.fullmatch(r"[|: -]+", line)
                if is_torn or table[-1] != table[0]:
                    torn.append(f"{page}:{number}")
                continue
            seen += bool(table)
            if len(table) == 1:
                torn.append(f"{page}:{number - 1}")
            table = []
    assert seen > 50
    assert torn == []


def test_readme_is_short_and_leads_to_every_page() -> None:
    readme = (TOP / "README.md").read_text()
    assert len(readme.splitlines()) <= README_LINES_MAX
    linked = set(LINK.findall(readme))
    pages = {f"docs/{page.name}" for page in (TOP / "docs").glob("*.md")}
    assert sorted(pages - linked) == []


def test_every_file_that_a_page_names_is_there() -> None:
    there, named, missing = set(all_files()), 0, []
    for page in ["README.md", "CONTRIBUTING.md", *(name for name in all_files() if re.match(r"docs/\w+\.md", name))]:
        for name in NAMED_FILE.findall((TOP / page).read_text()):
            named += 1
            if not {name, f"gateway/{name}"} & there:
                missing.append(f"{page}: {name}")
    assert named > 50
    assert missing == []


def test_architecture_has_every_background_loop() -> None:
    loops = {
        node.args[0].value
        for file in files()
        if file.startswith("gateway/processes/")
        for node in walk(tree(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("every", "paced")
        if isinstance(node.args[0], ast.Constant)
    }
    table = (TOP / "docs/architecture.md").read_text().partition("| process | loops |")[2].partition("\n\n")[0]
    assert len(loops) > 10
    assert loops == set(re.findall(r"`([a-z ]+)`", table.replace("`/metrics`", "")))


def test_every_folder_has_its_place_in_the_architecture() -> None:
    section = (TOP / "docs/architecture.md").read_text().partition("\n## Folders\n")[2].partition("\n## ")[0]
    packages = {name.split("/")[1] for name in all_files() if re.fullmatch(r"gateway/\w+/__init__\.py", name)}
    assert len(packages) > 20
    assert packages - set(re.findall(r"\w+", section)) == set()
