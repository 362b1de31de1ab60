"""One name, one meaning; and plain English: no class name twice, none of the idioms below in code, docs or messages."""

import ast
import re
from collections import defaultdict
from typing import Final

import pytest

from tests.support.source import TOP, files, tree, walk

OWN: Final = "tests/house_rules/test_words.py"
TEXTS: Final = ("*.md", "Makefile", "config/*", "docs/**/*.md", "deploy/**/*", "bench/**/*.md", ".github/**/*.yml")
IDIOMS: Final[dict[str, str]] = {
    r"br(ings?|ought) .{0,30}to rest|c[ao]mes? to rest|coming to rest": "commits, settles",
    r"(?<!there )\b(is|was) no (?!longer\b|more\b|other\b|such\b)[a-z]+": "is not a",
    r"com(es?|ing) up again": "restarts",
    r"go(es)? on where it was": "resumes",
    r"the house\b": "this repository, the gateway, the processes",
    r"told apart": "distinguished",
    r"\blet finish\b": "may finish",
    r"nobody (can|could) tell": "unknown",
    r"(is|are|was|were|be) left alone": "is not touched, is skipped, is kept",
    r"left alone after": "the circuit is open after",
    r"(speak|speaks|spoken) of\b": "describe, report, warn",
    r"stands in it\b": "its value, its content",
    r"the mend\b|\bmends?\b": "the fix, fixes",
    r"done twice": "idempotent",
    r"\bin vain\b": "without success",
    r"says? thank you": "answers, accepts",
}
"""What a native reader stumbles over, and what to write instead."""
BANNED: Final = re.compile("|".join(f"(?:{idiom})" for idiom in IDIOMS), re.IGNORECASE)


def found(text: str) -> list[str]:
    """The idioms in a text, each with its line."""
    return [f"{n}: {hit[0]}" for n, line in enumerate(text.splitlines(), 1) for hit in BANNED.finditer(line)]


def test_no_class_name_means_two_things() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for file in files():
        if file.startswith(("gateway/", "pricing/")):
            for node in walk(tree(file)):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(file)
    assert len(places) > 300
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize(
    "text",
    [
        "An event that comes up again.",
        "Others are left alone,",
        "# Done twice, it counts once",
        "a body that is no JSON",
    ],
)
def test_an_idiom_is_found(text: str) -> None:
    assert len(found(text)) == 1


def test_no_idiom_is_used() -> None:
    texts = {path for pattern in TEXTS for path in TOP.glob(pattern) if path.is_file()}
    names = {file for file in files() if file != OWN} | {str(path.relative_to(TOP)) for path in texts}
    assert len(names) > 700
    hits = {name: found((TOP / name).read_text(errors="replace")) for name in sorted(names)}
    assert {name: lines for name, lines in hits.items() if lines} == {}
