"""docs/errors.md lists every code that a client may get, with its status, and no other."""

import ast
import re
from collections.abc import Iterator
from typing import Final

from tests.support.source import TOP, files, tree, walk

INDIRECT: Final = {
    "gateway/openai/request_errors.py": {"400 invalid_request_error"},
    "gateway/http/uploads.py": {"499 client_left"},
    "gateway/proxy/owners.py": {"404 response_not_found", "404 previous_response_not_found"},
    "gateway/proxy/relay.py": {"502 upstream_cut", "502 upstream_timeout"},
    "gateway/proxy/send.py": {"502 upstream_cut", "504 upstream_timeout"},
}
"""File → what its `ApiError`s say whose status or code is not written out in the call."""
ROW: Final = re.compile(r"^\| ([0-9, ]+) \| ((?:`\w+`(?:, )?)+) \|", re.MULTILINE)


def made() -> tuple[set[str], set[str]]:
    """Status and code of every error in the source, and the files that leave one of the two to a variable."""
    said, left = set(), set()
    for file in files():
        if not file.startswith("gateway/") or file.startswith("gateway/sandbox/"):
            continue
        for name, arguments in calls(file):
            wanted = arguments[:2] if name == "ApiError" else [ast.Constant(400), *arguments[2:3]]
            if len(wanted) == 2 and all(isinstance(each, ast.Constant) for each in wanted):
                said.add(" ".join(str(each.value) for each in wanted if isinstance(each, ast.Constant)))
            elif name == "ApiError":
                left.add(file)
    return said, left


def calls(file: str) -> Iterator[tuple[str, list[ast.expr]]]:
    """Every call that makes an error: its name and positional arguments."""
    for node in walk(tree(file)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("ApiError", "bad_request")
        ):
            yield node.func.id, node.args


def listed(text: str) -> set[str]:
    """Status and code of every row of its tables."""
    return {
        f"{status} {code}"
        for statuses, codes in ROW.findall(text)
        for status in statuses.split(", ")
        for code in re.findall(r"\w+", codes)
    }


def test_every_error_is_on_the_page_and_no_other() -> None:
    said, left = made()
    assert left == INDIRECT.keys()
    said |= {each for codes in INDIRECT.values() for each in codes}
    page = listed((TOP / "docs" / "errors.md").read_text())
    assert sorted(said - page) == []
    assert sorted(page - said) == []
